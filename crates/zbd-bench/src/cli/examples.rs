//! What the help teaches with.
//!
//! A line that begins with the tool's name is a command that can be typed; two spaces or a
//! redirection end it. The manual pages have the same examples.

pub(super) const TOOL: &str = "Examples:
  zbd-bench                                       measure the built-in device
  zbd-bench info /dev/vda                         what is known of a device
  zbd-bench zones map /dev/vda                    its zones as a picture
  zbd-bench run --device /dev/vda --op randread   measure it
  zbd-bench sweep --plot appends.svg              appends against depth, drawn

Exit status: 0 done; 1 I/O or verification failed; 2 usage, or a value outside \
the device's limits; 3 the device cannot be opened or cannot do what is asked";

pub(super) const RUN: &str = "Examples:
  zbd-bench run --depth 1 --runtime 10s           appends, one at a time
  zbd-bench run --bs 64k --iodepth 16 --zones 8   with the names that fio uses
  zbd-bench run --device pci:0000:00:01.0 --op write --destroy
  zbd-bench run --rate-iops 20k --ramp-time 2s    latencies at a steady rate
  zbd-bench run --format fio --output fio.json    for fio's plotting tools";

pub(super) const SWEEP: &str = "Examples:
  zbd-bench sweep                                 appends and writes over depths
  zbd-bench sweep --depths 1,8,64 --zones-list 1,4 --repeat 5
  zbd-bench sweep --device /dev/vda --plot vda.html --destroy
  zbd-bench sweep --ops append --block-sizes 4k,64k --format csv";

pub(super) const COMPARE: &str = "Examples:
  zbd-bench compare emu: emu:ring=packed          two kinds of rings
  zbd-bench compare pci:0000:00:01.0 /dev/vda --rebind --op randread
  zbd-bench compare emu: --against before.json    with what was measured before";

pub(super) const INFO: &str = "Examples:
  zbd-bench info emu:                             the device that is built in
  zbd-bench info pci:0000:00:01.0                 a function bound to vfio-pci
  zbd-bench info /dev/vda --format json           for scripts";

pub(super) const ZONES: &str = "Examples:
  zbd-bench zones report /dev/vda                 a line for each zone
  zbd-bench zones map /dev/vda                    all of them as a picture
  zbd-bench zones reset /dev/vda --zone 3 --destroy";

pub(super) const ZONES_REPORT: &str = "Examples:
  zbd-bench zones report emu:conventional=4       all zones
  zbd-bench zones report /dev/vda --zone 0 --zone 7
  zbd-bench zones report /dev/vda --format csv > zones.csv";

pub(super) const ZONES_MAP: &str = "Examples:
  zbd-bench zones map emu:store=disk.zbd          once
  zbd-bench zones map /dev/vda --watch            every second, until Ctrl-C
  zbd-bench zones map /dev/vda --watch 200ms      more often
  zbd-bench zones map /dev/vda --svg zones.svg    as a drawing, too

A function that another process drives through VFIO cannot be watched, because \
one process has it to itself. A block device can.";

pub(super) const ZONES_OPEN: &str = "Examples:
  zbd-bench zones open /dev/vda --zone 3          one zone
  zbd-bench zones open /dev/vda --zone 3 --zone 4 --format json";

pub(super) const ZONES_CLOSE: &str = "Examples:
  zbd-bench zones close /dev/vda --zone 3         one zone
  zbd-bench zones close /dev/vda --zone 3 --zone 4 --format json";

pub(super) const ZONES_FINISH: &str = "Examples:
  zbd-bench zones finish /dev/vda --zone 3        one zone
  zbd-bench zones finish /dev/vda --zone 3 --zone 4 --format json";

pub(super) const ZONES_RESET: &str = "Examples:
  zbd-bench zones reset emu:store=disk.zbd --zone 3
  zbd-bench zones reset /dev/vda --zone 3 --zone 4 --destroy";

pub(super) const ZONES_RESET_ALL: &str = "Examples:
  zbd-bench zones reset-all emu:store=disk.zbd
  zbd-bench zones reset-all /dev/vda --destroy";

pub(super) const LIST: &str = "Examples:
  zbd-bench list                                  for people
  zbd-bench list --format json                    for scripts";

pub(super) const BIND: &str = "Examples:
  sudo zbd-bench bind 0000:00:01.0                for root
  sudo zbd-bench bind 0000:00:01.0 --owner alice  for a user, too";

pub(super) const UNBIND: &str = "Examples:
  sudo zbd-bench unbind 0000:00:01.0
  sudo zbd-bench unbind pci:0000:00:01.0          as other commands name it";

pub(super) const COMPLETIONS: &str = "Examples:
  zbd-bench completions bash > /etc/bash_completion.d/zbd-bench
  zbd-bench completions zsh > ~/.zfunc/_zbd-bench
  zbd-bench completions fish > ~/.config/fish/completions/zbd-bench.fish";

pub(super) const MAN: &str = "Examples:
  zbd-bench man > zbd-bench.1                     then: man ./zbd-bench.1
  zbd-bench man --dir ~/.local/share/man/man1     a page for each command";
