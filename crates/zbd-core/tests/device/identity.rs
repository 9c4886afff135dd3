//! What devices tell of themselves.

use zbd_core::{DmaBuffer, ErrorKind, Lifetime, Request, parse_id};

use crate::{
    configuration::{LIFETIME, refusal},
    disguise::Disguise,
    rig::Rig,
};

const DISK: &str = "model=none,zones=4,zone-size=1m,queue-size=8";

#[test]
fn an_id_is_read_up_to_its_end_and_never_printed_raw() {
    let rig = Rig::threaded(DISK);
    let parse = |bytes: &[u8]| {
        let mut buffer = rig.queue.buffer(bytes.len()).unwrap();
        buffer.copy_from_slice(bytes);
        parse_id(&buffer)
    };
    assert_eq!(parse(b"zbd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "zbd");
    assert_eq!(parse(b"01234567890123456789"), "01234567890123456789");
    assert_eq!(parse(&[0; 20]), "");
    assert_eq!(parse(b"a b~\0garbage 9012345"), "a b~");
    // A buffer of another length than the request's is no reason to panic.
    assert_eq!(parse(b"zbd"), "zbd");
    assert_eq!(parse(b"01234567890123456789more"), "01234567890123456789");
    assert_eq!(
        parse(b"\x1b[31m\xffx\x7f\n"),
        "\u{fffd}[31m\u{fffd}x\u{fffd}\u{fffd}"
    );
}

#[test]
fn the_id_of_a_device_is_asked_for_in_its_exact_length() {
    let mut rig = Rig::threaded(DISK);
    for len in [1, 19, 21, 512] {
        let buffer = rig.filled(len, 1);
        let (kind, words) = refusal(&mut rig, Request::GetId { buffer });
        assert_eq!(kind, ErrorKind::InvalidRequest);
        assert!(words.contains("20 bytes"), "{words}");
    }
    let buffer = rig.filled(20, 1);
    let done = rig.run(Request::GetId { buffer });
    done.result.unwrap();
    let id = parse_id(&done.buffer.unwrap());
    assert!(!id.is_empty() && id.is_ascii(), "{id:?}");
}

#[test]
fn what_a_device_leaves_unwritten_is_no_answer() {
    let requests: [fn(DmaBuffer) -> Request; 2] = [
        |buffer| Request::GetId { buffer },
        |buffer| Request::GetLifetime { buffer },
    ];
    for (request, len) in requests.into_iter().zip([20, 6]) {
        let mut rig = Disguise::offering(&[LIFETIME]).rig(DISK);
        let arena = rig.queue.memory().clone();
        let buffer = rig.filled(len, 1);
        let iova = buffer.iova();
        rig.queue.submit(request(buffer), 0).unwrap();
        // The device is never shown it, so what it was given comes back with the reset.
        drop(rig.queue);
        let mut pages = Vec::new();
        let found = loop {
            let page = arena.allocate(len).unwrap();
            if page.iova() == iova {
                break page;
            }
            pages.push(page);
        };
        assert_eq!(found.to_vec(), vec![0; len]);
    }
}

#[test]
fn a_lifetime_takes_its_exact_length() {
    let mut rig = Disguise::offering(&[LIFETIME]).rig(DISK);
    assert!(rig.queue.info().lifetime);
    for len in [5, 7] {
        let buffer = rig.filled(len, 1);
        let (kind, words) = refusal(&mut rig, Request::GetLifetime { buffer });
        assert_eq!(kind, ErrorKind::InvalidRequest);
        assert!(words.contains("6 bytes"), "{words}");
    }
    let error = Lifetime::parse(&rig.filled(5, 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let mut buffer = rig.queue.buffer(6).unwrap();
    buffer.copy_from_slice(&[3, 0, 10, 0, 11, 1]);
    let lifetime = Lifetime::parse(&buffer).unwrap();
    assert_eq!(lifetime.pre_eol, zbd_core::PreEol::Urgent);
    assert_eq!(lifetime.type_a, zbd_core::Wear::UpToPercent(100));
    assert_eq!(lifetime.type_b, zbd_core::Wear::Reserved(0x10b));
}
