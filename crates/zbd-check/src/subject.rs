//! The device under test: what is known of it, the session with it, and the zones that checks use.

use std::{collections::BTreeSet, sync::Arc};

use vfio_virtio::{ConfiguredDevice, ErrorKind, Features, Negotiation, PciFunction, Result};

use crate::{
    Device, Exchange, Model, Options,
    exchange::Answered,
    facts,
    outcome::{Finding, Verdict, not_applicable, require, undecidable},
    pattern::pattern,
    request::{Answer, Request, append},
    session::{Session, Trouble, negotiate},
    wire::{BLOCK_DEVICE, REPORT_ENTRY, SECTOR, feature, kind, status},
    zone::{Report, SWR, State, Zone},
};

/// How many zones are looked at, at the most: a device may claim any number, and report them all.
const MOST_ZONES: u64 = 1 << 20;
/// How many zones are asked for at once.
const ZONES_AT_ONCE: usize = 1023;
/// How many blocks a zone has to have room for to be of use in a check.
const BLOCKS: u64 = 12;

pub(crate) struct Subject {
    function: Arc<dyn PciFunction>,
    pub(crate) options: Options,
    pub(crate) device: Device,
    session: Option<(Features, Session)>,
    /// What was sent since the present check began.
    trail: Vec<Exchange>,
    /// The zones as they were at first, or why they are not known.
    zones: Option<Result<Vec<Zone>, String>>,
    /// The zones, by number, that may not be empty because of a check.
    touched: BTreeSet<u64>,
    /// The least length of an append that succeeds, once it is known.
    append_len: Option<usize>,
    /// Why the device cannot be set up any more.
    dead: Option<String>,
}

impl Subject {
    pub(crate) fn open(function: Arc<dyn PciFunction>, options: Options) -> Result<Self> {
        let negotiation = Negotiation::begin(Arc::clone(&function), BLOCK_DEVICE)?;
        let offered = negotiation.offered();
        let model = negotiation.read_config(|config| facts::model(offered, config))?;
        drop(negotiation);
        let mut accepted = feature::BLOCK
            .iter()
            .fold(options.rings, |all, feature| all | *feature)
            & offered;
        if model == Model::HostManaged {
            // 5.2.5.1: a driver must not accept it.
            accepted = accepted - feature::DISCARD;
        }
        let configured = negotiate(&function, accepted)?;
        let config = configured.read_config(facts::bytes)?;
        let mut device = Device {
            name: function.name(),
            offered,
            accepted,
            model,
            capacity_sectors: 0,
            config,
        };
        device.capacity_sectors = device.field(0, 8);
        let session = Session::start(configured, options.patience)?;
        Ok(Self {
            function,
            options,
            device,
            session: Some((accepted, session)),
            trail: Vec::new(),
            zones: None,
            touched: BTreeSet::new(),
            append_len: None,
            dead: None,
        })
    }

    pub(crate) fn begin(&mut self) {
        self.clean();
        self.trail.clear();
    }

    pub(crate) fn take_trail(&mut self) -> Vec<Exchange> {
        std::mem::take(&mut self.trail)
    }

    /// What a device with other features accepted is like before it runs: its configuration, or the
    /// kind of error with which they were refused. Ends the session.
    pub(crate) fn negotiate(&mut self, block: Features) -> Verdict<Option<ConfiguredDevice>> {
        self.session = None;
        if let Some(why) = &self.dead {
            return undecidable(why.clone());
        }
        match negotiate(&self.function, block | self.rings()) {
            Ok(configured) => Ok(Some(configured)),
            // What else is of this kind was looked at when the device was opened.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
            Err(error) => Err(self.lose(&error)),
        }
    }

    /// Begins a session with these features of 5.2 accepted; false if the device refuses them.
    pub(crate) fn start_with(&mut self, block: Features) -> Verdict<bool> {
        let Some(configured) = self.negotiate(block)? else {
            return Ok(false);
        };
        match Session::start(configured, self.options.patience) {
            Ok(session) => {
                self.session = Some((block | self.rings(), session));
                Ok(true)
            }
            Err(error) => Err(self.lose(&error)),
        }
    }

    fn rings(&self) -> Features {
        self.options.rings & self.device.offered
    }

    fn lose(&mut self, error: &vfio_virtio::Error) -> Finding {
        let why = format!("the device can no longer be set up: {error}");
        self.dead = Some(why.clone());
        Finding::Undecidable(why)
    }

    /// The session with all features, begun anew if it is over.
    pub(crate) fn session(&mut self) -> Verdict<&mut Session> {
        let accepted = self.device.accepted;
        let is_running = matches!(&self.session, Some((features, _)) if *features == accepted);
        if !is_running && !self.start_with(accepted)? {
            let why = "the device refuses the features that it accepted at first".to_owned();
            return undecidable(why);
        }
        match &mut self.session {
            Some((_, session)) => Ok(session),
            None => undecidable("there is no session"),
        }
    }

    /// Sends a request in a session with all features, and waits for its answer.
    pub(crate) fn run(&mut self, request: &Request) -> Verdict<Answer> {
        self.session()?;
        self.run_here(request)
    }

    /// Sends a request in the present session, whatever its features are.
    pub(crate) fn run_here(&mut self, request: &Request) -> Verdict<Answer> {
        let answer = self.run_all_here(std::slice::from_ref(request))?.pop();
        answer.map_or_else(|| undecidable("nothing was sent"), Ok)
    }

    /// Sends requests at once in a session with all features.
    pub(crate) fn run_all(&mut self, requests: &[Request]) -> Verdict<Vec<Answer>> {
        self.session()?;
        self.run_all_here(requests)
    }

    fn run_all_here(&mut self, requests: &[Request]) -> Verdict<Vec<Answer>> {
        let requests: Vec<_> = requests
            .iter()
            .map(|request| request.clone().limited_to(self.device.segment_len()))
            .collect();
        for request in &requests {
            if request.data_segments() > self.device.segments() {
                return undecidable(format!(
                    "a request of {} bytes takes more segments than the device allows (seg_max)",
                    request.data_len()
                ));
            }
            self.touch(request);
        }
        let Some((_, session)) = &mut self.session else {
            return undecidable("there is no session");
        };
        let outcomes = session.execute(&requests);
        let mut answers = Vec::new();
        let mut trouble = None;
        for (request, outcome) in requests.iter().zip(outcomes) {
            let mut record = request.record();
            match outcome {
                Ok(answer) => {
                    record.answer = Ok(Answered {
                        status: answer.status(),
                        is_status_written: answer.is_status_written(),
                        in_header: answer.in_header().to_vec(),
                        used_len: answer.used_len,
                    });
                    answers.push(answer);
                }
                Err(Trouble::NotSent(why)) => {
                    record.answer = Err(format!("not sent: {why}"));
                    trouble.get_or_insert(Finding::Undecidable(format!(
                        "a request of {} bytes cannot be sent: {why}",
                        request.data_len()
                    )));
                }
                Err(Trouble::Unanswered(what)) => {
                    trouble = Some(Finding::Fail {
                        required: "the device answers every request by writing its final status \
                                   byte (5.2.6)"
                            .to_owned(),
                        found: what.clone(),
                    });
                    record.answer = Err(what);
                }
            }
            self.trail.push(record);
        }
        match trouble {
            None => Ok(answers),
            Some(finding) => {
                // A reset is what brings the device back.
                self.session = None;
                Err(finding)
            }
        }
    }

    /// Sends a request that a check builds on: that it succeeds is not what is looked at.
    pub(crate) fn must(&mut self, request: &Request) -> Verdict<Answer> {
        let answer = self.run(request)?;
        if answer.status() == status::OK {
            return Ok(answer);
        }
        undecidable(format!(
            "a request that this builds on failed: {} ended with {}",
            request.record().kind_name(),
            answer.told()
        ))
    }

    /// The session's cache mode, written and read back.
    pub(crate) fn set_writeback(&mut self, value: u8) -> Verdict<Result<()>> {
        let offset = crate::wire::offset::WRITEBACK as u64;
        Ok(self.session()?.device.write_config_u8(offset, value))
    }

    fn touch(&mut self, request: &Request) {
        const CHANGING: [u32; 5] = [
            kind::OUT,
            kind::APPEND,
            kind::OPEN,
            kind::CLOSE,
            kind::FINISH,
        ];
        let sectors = self.device.zone_sectors();
        if sectors == 0 || !CHANGING.contains(&request.kind) {
            return;
        }
        let zone = request.sector / sectors;
        // The next one too: a device that does not stop at a border writes there.
        self.touched.extend([zone, zone.saturating_add(1)]);
    }

    /// Empties the zones that checks may have written.
    pub(crate) fn clean(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() || self.dead.is_some() {
            return;
        }
        let zones = match self.zones() {
            Ok(zones) => zones.to_vec(),
            Err(_) => return,
        };
        for number in touched {
            let zone = usize::try_from(number).ok().and_then(|at| zones.get(at));
            if let Some(zone) = zone.filter(|zone| zone.is_usable()) {
                // That a zone is empty is looked at when it is used.
                let _ = self.run(&Request::new(kind::RESET, zone.start));
            }
        }
        self.touched.clear();
    }

    /// All zones, as they were at first.
    pub(crate) fn zones(&mut self) -> Verdict<&[Zone]> {
        self.zoned()?;
        if self.zones.is_none() {
            let found = self.list_zones();
            if let Ok(zones) = &found {
                let written = |zone: &&Zone| zone.is_usable() && zone.state != State::EMPTY;
                let written: Vec<_> = zones.iter().filter(written).map(|z| z.start).collect();
                for start in written {
                    let _ = self.run(&Request::new(kind::RESET, start));
                }
                self.touched.clear();
            }
            self.zones = Some(found.map_err(|finding| match finding {
                Finding::Fail { found, .. } => found,
                Finding::NotApplicable(why) | Finding::Undecidable(why) => why,
            }));
        }
        match &self.zones {
            Some(Ok(zones)) => Ok(zones),
            Some(Err(why)) => undecidable(format!("its zones are not known: {why}")),
            None => undecidable("its zones are not known"),
        }
    }

    fn list_zones(&mut self) -> Verdict<Vec<Zone>> {
        let count = self.device.zone_count();
        if count > MOST_ZONES {
            return undecidable(format!(
                "the device has {count} zones, and {MOST_ZONES} are looked at, at the most"
            ));
        }
        let mut zones: Vec<Zone> = Vec::new();
        while (zones.len() as u64) < count {
            let sector = zones.len() as u64 * self.device.zone_sectors();
            let room = ZONES_AT_ONCE.min((count - zones.len() as u64) as usize);
            let report = self.report(sector, room)?;
            if report.zones.is_empty() {
                return undecidable(format!("a report from sector {sector} on has no zones"));
            }
            zones.extend(report.zones);
        }
        Ok(zones)
    }

    /// A report with room for `room` zones.
    pub(crate) fn report(&mut self, sector: u64, room: usize) -> Verdict<Report> {
        let request = Request::new(kind::REPORT, sector).receives((room + 1) * REPORT_ENTRY);
        let answer = self.must(&request)?;
        Ok(Report::parse(answer.data()))
    }

    /// The zone that begins at `start`, as it is now.
    pub(crate) fn zone_at(&mut self, start: u64) -> Verdict<Zone> {
        match self.report(start, 1)?.zones.first() {
            Some(zone) => Ok(*zone),
            None => undecidable(format!("a report from sector {start} on has no zone")),
        }
    }

    /// Fails unless the zone that begins at `start` is in `state`.
    pub(crate) fn expect_state(&mut self, start: u64, state: State, required: &str) -> Verdict {
        let zone = self.zone_at(start)?;
        require(zone.state == state, required, || {
            format!("the zone is {}, not {state}", zone.state)
        })
    }

    /// Brings the zone into `state` by the command of this kind, or says that it cannot be.
    pub(crate) fn bring(&mut self, command: u32, start: u64, state: State) -> Verdict {
        self.must(&Request::new(command, start))?;
        let zone = self.zone_at(start)?;
        if zone.state == state {
            return Ok(());
        }
        undecidable(format!(
            "a zone cannot be brought into the state that this builds on: after {} it is {}, not \
             {state}",
            crate::wire::request_name(command),
            zone.state
        ))
    }

    pub(crate) fn zoned(&self) -> Verdict {
        match self.device.model {
            Model::NotZoned => not_applicable("the device does not offer ZONED"),
            Model::None => not_applicable("the device offers ZONED without a zoned model"),
            _ if self.device.zone_sectors() == 0 => undecidable("zone_sectors is 0"),
            _ => Ok(()),
        }
    }

    pub(crate) fn writable(&self) -> Verdict {
        match self.device.offers(feature::RO) {
            true => not_applicable("the device is read-only (RO)"),
            false => Ok(()),
        }
    }

    /// `count` sequential zones, all empty, of any type.
    pub(crate) fn sequential(&mut self, count: usize) -> Verdict<Vec<Zone>> {
        self.zoned()?;
        self.writable()?;
        self.clean();
        let least = BLOCKS * self.device.unit() as u64 / SECTOR;
        let usable = self.zones()?.iter().filter(|zone| zone.is_usable());
        let roomy = usable.filter(|zone| zone.capacity >= least);
        let chosen: Vec<_> = roomy.take(count).copied().collect();
        if chosen.len() < count {
            return undecidable(format!(
                "this takes {count} sequential zones with room for {BLOCKS} blocks, and the device \
                 has {}",
                chosen.len()
            ));
        }
        for zone in &chosen {
            let now = self.zone_at(zone.start)?;
            if now.state != State::EMPTY {
                return undecidable(format!(
                    "the zone at sector {} cannot be emptied: it is {}",
                    zone.start, now.state
                ));
            }
        }
        Ok(chosen)
    }

    /// One empty sequential zone of any type.
    pub(crate) fn zone(&mut self) -> Verdict<Zone> {
        Ok(self.sequential(1)?[0])
    }

    /// `count` empty zones that must be written sequentially.
    pub(crate) fn required(&mut self, count: usize) -> Verdict<Vec<Zone>> {
        self.zoned()?;
        self.writable()?;
        if self.device.model == Model::HostAware {
            return not_applicable("a host-aware device has no sequential-write-required zones");
        }
        let zones = self.sequential(count)?;
        match zones.iter().all(|zone| zone.kind == SWR) {
            true => Ok(zones),
            false => undecidable("its sequential zones are not all sequential-write-required"),
        }
    }

    /// `count` empty zones that take appends.
    pub(crate) fn appendable(&mut self, count: usize) -> Verdict<Vec<Zone>> {
        let zones = self.required(count)?;
        match self.device.max_append_sectors() {
            0 => not_applicable("max_append_sectors is 0: the device takes no appends"),
            _ => Ok(zones),
        }
    }

    /// The length of appends that succeed where nothing is wrong: what is refused is not to be so for
    /// its alignment. Most devices take `write_granularity`, as they should.
    pub(crate) fn append_len(&mut self) -> Verdict<usize> {
        if let Some(len) = self.append_len {
            return Ok(len);
        }
        let zone = self.appendable(1)?[0];
        let most = (self.device.max_append_sectors() * SECTOR).min(64 << 10);
        let mut len = self.device.unit();
        while len as u64 <= most {
            let answer = self.run(&append(zone.start, pattern(1, len)))?;
            if answer.status() == status::OK {
                self.append_len = Some(len);
                return Ok(len);
            }
            len *= 2;
        }
        undecidable("no append of up to 64 KiB succeeds")
    }

    /// A conventional zone, if there is one.
    pub(crate) fn conventional(&mut self) -> Verdict<Zone> {
        self.zoned()?;
        let mut zones = self.zones()?.iter();
        match zones.find(|zone| zone.kind == crate::zone::CONVENTIONAL) {
            Some(zone) => Ok(*zone),
            None => not_applicable("the device has no conventional zone"),
        }
    }

    /// A zone that has failed in this way, if there is one.
    pub(crate) fn failed(&mut self, state: State) -> Verdict<Zone> {
        self.zoned()?;
        match self.zones()?.iter().find(|zone| zone.state == state) {
            Some(zone) => Ok(*zone),
            None => undecidable(format!("the device has no zone that is {}", state.name())),
        }
    }
}
