//! Memory that was mapped by others.

use std::fs::File;

use super::*;

fn anonymous(len: usize) -> MmapRaw {
    MmapOptions::new().len(len).map_anon().unwrap().into()
}

fn file(len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file
}

fn refused(map: MmapRaw) -> String {
    let error = HostMemory::from_mmap(map).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    error.to_string()
}

#[test]
fn memory_of_others_is_taken_as_it_is() {
    let page = rustix::param::page_size();
    let map = anonymous(3 * page);
    let at = map.as_mut_ptr();
    let memory = HostMemory::from_mmap(map).unwrap();
    assert_eq!((memory.as_ptr(), memory.len_bytes()), (at, 3 * page));
    assert_eq!(memory.page_size(), PageSize::Base);
    assert!(memory.is_private());

    let map = MmapOptions::new().map_raw(&file(8192)).unwrap();
    assert!(!HostMemory::from_mmap(map).unwrap().is_private());
}

#[test]
fn pages_of_2_mib_are_known() {
    // What the kernel says of memory that is known to have them, if there are any.
    let own = HostMemory::new(4 << 20).unwrap();
    let pages = own.page_size();
    let memory = HostMemory::from_mmap(own.map).unwrap();
    assert_eq!(memory.page_size(), pages);
    assert!(memory.is_private());
}

#[test]
fn memory_that_cannot_serve_is_refused_with_the_remedy() {
    let page = rustix::param::page_size();
    let text = refused(anonymous(page + 1));
    assert!(
        text.contains(&format!("a multiple of {page} bytes")),
        "{text}"
    );
    let map = MmapOptions::new()
        .offset(512)
        .len(page)
        .map_raw(&file(8192));
    let text = refused(map.unwrap());
    assert!(text.contains("beginning of a page"), "{text}");
    let map = MmapOptions::new().map_raw_read_only(&file(8192)).unwrap();
    let text = refused(map);
    assert!(text.contains("readable and writable"), "{text}");
}
