//! Whom a group's file is given to.

use std::{fs, path::Path, process::Command, str::FromStr};

use rustix::fs::{Gid, Uid, chown};

use super::Sysfs;
use crate::{Error, ErrorKind, Result};

/// A user who may claim a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// By name; the group is the user's own.
    Name(String),
    /// By number.
    Ids {
        /// The user.
        uid: u32,
        /// The group, unchanged if there is none.
        gid: Option<u32>,
    },
}

impl FromStr for Owner {
    type Err = Error;

    /// Reads a user name, `UID` or `UID:GID`.
    fn from_str(text: &str) -> Result<Self> {
        let number = |n: &str| n.parse::<u32>().ok().filter(|id| *id != u32::MAX);
        let ids = match text.split_once(':') {
            Some((uid, gid)) => number(uid).zip(number(gid).map(Some)),
            None => number(text).map(|uid| (uid, None)),
        };
        if let Some((uid, gid)) = ids {
            return Ok(Self::Ids { uid, gid });
        }
        let numeric = text.bytes().all(|b| b.is_ascii_digit());
        if numeric || text.contains([':', '/', '\n']) || text.starts_with('-') {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("`{text}` is not an owner; give a user name, a UID, or UID:GID"),
            ));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl Sysfs {
    /// The numbers of `owner`.
    pub(super) fn resolve(&self, owner: &Owner) -> Result<(u32, Option<u32>)> {
        let name = match owner {
            Owner::Ids { uid, gid } => return Ok((*uid, *gid)),
            Owner::Name(name) => name,
        };
        let local = fs::read_to_string(self.path("etc/passwd")).unwrap_or_default();
        account(&local, name)
            .or_else(|| account(&directory_entry(name)?, name))
            .map(|(uid, gid)| (uid, Some(gid)))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("there is no user `{name}`; give an existing user name or a UID"),
                )
            })
    }
}

/// The user and group of `name` in the text of a password file.
fn account(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    })
}

/// What the system's other user databases say of `name`.
///
/// A program of its own asks them, because a statically linked one cannot load their modules.
fn directory_entry(name: &str) -> Option<String> {
    let output = Command::new("getent")
        .args(["passwd", "--", name])
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()
}

/// Gives the file at `path` to a user.
pub(super) fn give(path: &Path, (uid, gid): (u32, Option<u32>)) -> Result<()> {
    chown(path, Some(Uid::from_raw(uid)), gid.map(Gid::from_raw)).map_err(|e| {
        Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "cannot give {} to user {uid}; that needs root (sudo)",
                path.display()
            ),
        )
        .with_source(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        let ids = |uid, gid| Owner::Ids { uid, gid };
        assert_eq!("1000".parse::<Owner>().unwrap(), ids(1000, None));
        assert_eq!("1000:5".parse::<Owner>().unwrap(), ids(1000, Some(5)));
        assert_eq!(
            "alice".parse::<Owner>().unwrap(),
            Owner::Name("alice".into())
        );
        for text in ["", "-x", "a:b", "4294967295", "99999999999", "1:", "a/b"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nalicex:x:7:7::/:\nbroken\nalice:x:1000:1001::/:\n";
        assert_eq!(account(passwd, "alice"), Some((1000, 1001)));
        assert_eq!(account(passwd, "ali"), None);
        assert_eq!(account(passwd, "broken"), None);
    }
}
