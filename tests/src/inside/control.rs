//! The machine's own control: a scenario speaks QMP to the QEMU that it runs in, over a serial port.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::termios::{OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use super::function::Function;
use crate::guest::qemu;

const PORT: &str = "/dev/ttyS2";
/// QEMU answers at once, but its machine may be slow to give it a turn.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How often, and for how long at a time, its first answer is waited for.
const ATTEMPTS: u32 = 10;
const FIRST_ANSWER_TIME: Duration = Duration::from_secs(1);
/// How long the kernel may take to find, or to let go of, a device.
const PLUG_TIME: Duration = Duration::from_secs(20);

/// A connection to QEMU. One at a time: all share the port.
#[derive(Debug)]
pub struct Control {
    port: File,
    /// What has come of the next line.
    line: Vec<u8>,
    events: VecDeque<Value>,
    commands: u64,
}

impl Control {
    /// Opens the port, and leaves behind what came through it before.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn open() -> Result<Self> {
        let mut attempts = 1;
        loop {
            let mut control = Self::open_port()?;
            // Refused if a predecessor has done it, which is as well.
            match control.answer("qmp_capabilities", &json!({}), FIRST_ANSWER_TIME) {
                // What came while nobody listened, such as QEMU's greeting, can take the interrupt
                // of what comes now with it. A port that is opened anew asks for it again.
                Err(_) if attempts < ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
                Ok(_) => {
                    control.events.clear();
                    return Ok(control);
                }
            }
        }
    }

    fn open_port() -> Result<Self> {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(PORT)
            .context(PORT)?;
        let mut settings = tcgetattr(&port)?;
        settings.make_raw();
        // A read returns after a tenth of a second, with nothing if nothing has come.
        settings.special_codes[SpecialCodeIndex::VMIN] = 0;
        settings.special_codes[SpecialCodeIndex::VTIME] = 1;
        tcsetattr(&port, OptionalActions::Now, &settings)?;
        Ok(Self {
            port,
            line: Vec::new(),
            events: VecDeque::new(),
            // What answers a predecessor on the same port is not taken for an answer to us.
            commands: u64::from(std::process::id()) << 32,
        })
    }

    /// Executes a command, and returns what it returns.
    ///
    /// # Errors
    /// QEMU's.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let answer = self.answer(command, arguments, ANSWER_TIME)?;
        ensure!(
            answer.get("error").is_none(),
            "{command} {arguments}: {}",
            answer["error"]
        );
        Ok(answer["return"].clone())
    }

    /// Executes a command of QEMU's monitor for people, and returns what it prints.
    ///
    /// # Errors
    /// If there is no monitor.
    pub fn monitor(&mut self, line: &str) -> Result<String> {
        let arguments = json!({ "command-line": line });
        let printed = self.execute("human-monitor-command", &arguments)?;
        Ok(printed.as_str().context("not a text")?.to_owned())
    }

    /// Waits for an event of this name that has come since the port was opened, and returns its
    /// data.
    ///
    /// # Errors
    /// If it does not come in time.
    pub fn event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(event) = self.events.pop_front() {
                if event["event"] == name {
                    return Ok(event["data"].clone());
                }
            }
            let message = self
                .message(deadline)?
                .with_context(|| format!("no {name} in {limit:?}"))?;
            self.events.push_back(message);
        }
    }

    /// Asks for a disk to be unplugged; the kernel and whoever has the disk are given time to let go
    /// of it. See [`unplugged`](Self::unplugged).
    ///
    /// # Errors
    /// If it cannot be unplugged.
    pub fn unplug(&mut self, function: &Function) -> Result<()> {
        let id = function.disk.name;
        self.execute("device_del", &json!({ "id": id })).map(drop)
    }

    /// Waits until a disk has been unplugged.
    ///
    /// # Errors
    /// If that does not happen in time.
    pub fn unplugged(&mut self, function: &Function) -> Result<()> {
        loop {
            // The device's parts report their end, too.
            let gone = self.event("DEVICE_DELETED", PLUG_TIME)?;
            if gone["device"] == function.disk.name {
                break;
            }
        }
        function.wait(false, PLUG_TIME)
    }

    /// Plugs a disk in again, and waits until the kernel's driver has it.
    ///
    /// # Errors
    /// If the kernel does not find it.
    pub fn plug(&mut self, function: &Function) -> Result<()> {
        let refused = self.monitor(&format!("device_add {}", qemu::device(function.disk)))?;
        ensure!(refused.is_empty(), "{}: {refused}", function.disk.name);
        function.wait(true, PLUG_TIME)?;
        // Until then the kernel is about to give it to that driver, whatever is asked for.
        function.block_device().map(drop)
    }

    /// The whole answer to a command.
    fn answer(&mut self, command: &str, arguments: &Value, limit: Duration) -> Result<Value> {
        self.commands += 1;
        let id = self.commands;
        let message = json!({ "execute": command, "arguments": arguments, "id": id });
        self.port.write_all(format!("{message}\n").as_bytes())?;
        let deadline = Instant::now() + limit;
        loop {
            match self.message(deadline)? {
                Some(message) if message["id"] == id => return Ok(message),
                Some(message) => self.events.push_back(message),
                None => bail!("QEMU does not answer {command}"),
            }
        }
    }

    /// The next message, if one comes before the deadline. What was cut off by the port's opening is
    /// passed over.
    fn message(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            let mut some = [0; 256];
            let newline = self.line.iter().position(|byte| *byte == b'\n');
            if let Some(end) = newline {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(message) => return Ok(Some(message)),
                    Err(_) => continue,
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let len = self.port.read(&mut some)?;
            self.line.extend_from_slice(&some[..len]);
        }
    }
}
