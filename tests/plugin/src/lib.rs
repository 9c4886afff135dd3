//! A QEMU plugin (interface 4, QEMU 9.2 and newer) that counts the instructions which a guest
//! executes, in user mode and in the kernel.
//!
//! `-plugin FILE.so,out=PATH`. Whenever the guest executes a marker in user mode, `mov r11, 5a4244504d4100NN`,
//! a line is added to PATH: NN, and the instructions executed so far in user mode and in the
//! kernel, those of the block with the marker included. Addresses with the top bit set are the
//! kernel's.
#![expect(
    unsafe_code,
    reason = "an interface of C functions, which QEMU resolves when it loads this"
)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write as _;
use std::ptr;
use std::sync::{Mutex, OnceLock};

/// The version of the interface that this is written for.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

#[repr(C)]
struct Opaque(c_void);
type Block = *mut Opaque;
type Instruction = *mut Opaque;

/// `qemu_plugin_u64`: a counter for each virtual processor.
#[repr(C)]
#[derive(Clone, Copy)]
struct Counter {
    score: *mut Opaque,
    offset: usize,
}

const INLINE_ADD_U64: c_int = 0;
const CB_NO_REGS: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, translated: extern "C" fn(u64, Block));
    fn qemu_plugin_tb_n_insns(block: Block) -> usize;
    fn qemu_plugin_tb_vaddr(block: Block) -> u64;
    fn qemu_plugin_tb_get_insn(block: Block, index: usize) -> Instruction;
    fn qemu_plugin_insn_data(instruction: Instruction, into: *mut c_void, len: usize) -> usize;
    fn qemu_plugin_scoreboard_new(element_len: usize) -> *mut Opaque;
    fn qemu_plugin_u64_sum(counter: Counter) -> u64;
    fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: Block,
        operation: c_int,
        counter: Counter,
        operand: u64,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: Instruction,
        executed: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
}

/// `mov r11, imm64`, and the immediate's upper seven bytes.
const MARKER: [u8; 2] = [0x49, 0xbb];
const MAGIC: [u8; 7] = *b"\0AMPDBZ";
const MARKER_LEN: usize = 10;

struct Counts {
    user: Counter,
    kernel: Counter,
    out: Mutex<File>,
}

// SAFETY: the counters point to what QEMU keeps until it ends; it lets any thread read them.
unsafe impl Send for Counts {}
// SAFETY: as above.
unsafe impl Sync for Counts {}

static COUNTS: OnceLock<Counts> = OnceLock::new();

extern "C" fn marked(_processor: c_uint, marker: *mut c_void) {
    let Some(counts) = COUNTS.get() else { return };
    // SAFETY: both counters belong to a scoreboard that is never freed.
    let (user, kernel) = unsafe {
        (
            qemu_plugin_u64_sum(counts.user),
            qemu_plugin_u64_sum(counts.kernel),
        )
    };
    if let Ok(mut out) = counts.out.lock() {
        // A line that cannot be written is missed by who reads the file.
        let _ = writeln!(out, "{} {user} {kernel}", marker.addr());
    }
}

extern "C" fn translated(_id: u64, block: Block) {
    let Some(counts) = COUNTS.get() else { return };
    // SAFETY: QEMU calls this with a block that is valid during the call, and the indices are below
    // the number of its instructions.
    unsafe {
        let count = qemu_plugin_tb_n_insns(block);
        let in_kernel = qemu_plugin_tb_vaddr(block) >> 63 == 1;
        if !in_kernel {
            for index in 0..count {
                let instruction = qemu_plugin_tb_get_insn(block, index);
                let mut bytes = [0; MARKER_LEN];
                let len =
                    qemu_plugin_insn_data(instruction, bytes.as_mut_ptr().cast(), bytes.len());
                if len == MARKER_LEN && bytes[..2] == MARKER && bytes[3..] == MAGIC {
                    let marker = ptr::without_provenance_mut(bytes[2].into());
                    qemu_plugin_register_vcpu_insn_exec_cb(instruction, marked, CB_NO_REGS, marker);
                }
            }
        }
        let counter = if in_kernel {
            counts.kernel
        } else {
            counts.user
        };
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
            block,
            INLINE_ADD_U64,
            counter,
            count as u64,
        );
    }
}

/// Called by QEMU when it has loaded this.
///
/// # Safety
/// `argv` must be `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: the caller's promise.
        .map(|i| unsafe { CStr::from_ptr(*argv.add(i)) });
    let out = arguments
        .filter_map(|argument| argument.to_str().ok())
        .find_map(|argument| argument.strip_prefix("out="));
    let Some(out) = out else {
        eprintln!("count plugin: out=PATH is missing");
        return 1;
    };
    let file = match File::create(out) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("count plugin: {out}: {error}");
            return 1;
        }
    };
    // SAFETY: callable from here on (the interface says so), with room for two counters each.
    let score = unsafe { qemu_plugin_scoreboard_new(2 * size_of::<u64>()) };
    let counter = |index| Counter {
        score,
        offset: index * size_of::<u64>(),
    };
    let counts = Counts {
        user: counter(0),
        kernel: counter(1),
        out: Mutex::new(file),
    };
    if COUNTS.set(counts).is_err() {
        eprintln!("count plugin: loaded twice");
        return 1;
    }
    // SAFETY: `id` is the one that QEMU gave to this plugin.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}
