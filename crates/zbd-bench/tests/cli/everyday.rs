//! Completions, manual pages and colours, as users meet them.

use crate::harness::{plain, printed};

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&mut plain(&["completions", shell]));
        for word in ["zones", "reset-all", "block-size"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let output = plain(&["completions", "dos"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn bash_completes_what_can_be_typed() {
    let script = printed(&mut plain(&["completions", "bash"]));
    // The name of the function is the script's own affair.
    let question = script
        + "
        function=$(complete -p zbd-bench)
        function=${function#*-F }
        COMP_WORDS=(zbd-bench zones ma)
        COMP_CWORD=2
        ${function%% *} zbd-bench ma zones
        echo \"${COMPREPLY[@]}\"
        ";
    let mut bash = Command::new("bash")
        .arg("--norc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a bash");
    let mut stdin = bash.stdin.take().expect("it is piped");
    stdin.write_all(question.as_bytes()).expect("it reads");
    drop(stdin);
    let output = bash.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "map\n");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let page = printed(&mut plain(&["man"]));
    for part in [
        ".TH zbd-bench 1",
        ".SH NAME",
        ".SH SYNOPSIS",
        ".SH OPTIONS",
        ".SH EXAMPLES",
        ".SH \"EXIT STATUS\"",
        "zbd\\-bench\\-zones(1)",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let folder = tempfile::tempdir().expect("there is room");
    let dir = folder.path().join("man/man1");
    let dir = dir.to_str().expect("it is text");
    assert_eq!(printed(&mut plain(&["man", "--dir", dir])), "");
    for name in ["zbd-bench", "zbd-bench-run", "zbd-bench-zones-reset-all"] {
        let page = fs::read_to_string(format!("{dir}/{name}.1")).expect("there is a page");
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        assert!(page.contains(".SH EXAMPLES"), "{page}");
    }
    assert!(!fs::exists(format!("{dir}/zbd-bench-help.1")).expect("one can look"));
    let output = plain(&["man", "--dir", "/dev/null/x"]).output();
    assert_eq!(output.expect("the tool starts").status.code(), Some(1));
}

#[test]
fn help_has_colours_only_where_they_are_wanted() {
    let help = ["zones", "map", "--help"];
    assert!(!printed(&mut plain(&help)).contains('\x1b'));
    assert!(printed(plain(&help).env("CLICOLOR_FORCE", "1")).contains('\x1b'));
    let refused = printed(plain(&help).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1"));
    assert!(!refused.contains('\x1b'));
}

#[test]
fn complaints_have_colours_only_where_they_are_wanted() {
    let complaint = |variables: &[&str]| {
        let mut command = plain(&["info", "nonsense"]);
        command.envs(variables.iter().map(|name| (name, "1")));
        let output = command.output().expect("the tool starts");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).expect("it is text")
    };
    assert!(complaint(&[]).starts_with("zbd-bench: "));
    let forced = complaint(&["CLICOLOR_FORCE"]);
    assert!(forced.contains("\x1b[31mzbd-bench:\x1b[0m "), "{forced:?}");
    assert!(!complaint(&["CLICOLOR_FORCE", "NO_COLOR"]).contains('\x1b'));
}
