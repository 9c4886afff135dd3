//! The tool, run as its users run it.

use std::{
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

/// The tool with arguments, split at spaces.
pub(crate) fn tool(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zbd-bench"));
    command.args(arguments.split_whitespace());
    command
}

pub(crate) fn run(arguments: &str) -> Output {
    tool(arguments).output().expect("the tool starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the tool prints text")
}

/// The output of a command that succeeds in silence.
#[track_caller]
pub(crate) fn stdout(arguments: &str) -> String {
    let output = run(arguments);
    assert_eq!(text(&output.stderr), "", "{arguments}");
    assert_eq!(output.status.code(), Some(0), "{arguments}");
    text(&output.stdout)
}

#[track_caller]
pub(crate) fn json(arguments: &str) -> Value {
    serde_json::from_str(&stdout(arguments)).expect("the tool prints JSON")
}

#[track_caller]
pub(crate) fn assert_refused(arguments: &str, code: i32, word: &str) {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments}: {message}");
    assert!(message.starts_with("zbd-bench: "), "{message}");
    assert!(message.contains(word), "{arguments}: {message}");
    assert_eq!(text(&output.stdout), "", "{arguments}");
}

/// Starts the tool, to be interrupted.
pub(crate) fn start(arguments: &str) -> Child {
    let child = tool(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    thread::sleep(Duration::from_millis(500));
    child
}

pub(crate) fn interrupt(child: &Child) {
    let id = child.id().to_string();
    let status = Command::new("kill").args(["-INT", &id]).status();
    assert!(status.expect("kill runs").success());
}

/// The tool in a locale and with wishes for colours that are known.
pub(crate) fn plain(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zbd-bench"));
    command.args(arguments).env("LC_ALL", "C.UTF-8");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

/// What a command prints that succeeds in silence.
#[track_caller]
pub(crate) fn printed(command: &mut Command) -> String {
    let output = command.output().expect("the tool starts");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    text(&output.stdout)
}
