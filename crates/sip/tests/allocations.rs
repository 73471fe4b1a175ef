//! The wire path allocates nothing: counted by a global allocator, hence a test binary of its own.
#![allow(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sip::edit::Edit;
use sip::{Message, Name};

const INVITE: &[u8] = include_bytes!("messages/invite-1044.dat");

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc`, which is the system's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[test]
fn counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 10]))), 1);
}

#[test]
fn parse_and_keys_allocate_nothing() {
    assert_eq!(INVITE.len(), 1044);
    let count = allocations(|| {
        let m = Message::parse(INVITE).unwrap();
        assert_eq!(m.via().unwrap().branch(), Some("z9hG4bKPjOd8Qm1Yt3Bv7Kc2w"));
        assert_eq!(m.via().unwrap().sent_by, "198.51.100.17:5066");
        assert_eq!(m.call_id(), Ok("5d2f9b7e-6a31-4c0a-9b1d-2f1f6f3f0a55"));
        assert_eq!(m.cseq().unwrap().number, 21774);
        assert_eq!(m.from().unwrap().tag(), Some("7b1f0f5e2c"));
        assert_eq!(m.to().unwrap().tag(), None);
        assert_eq!(m.max_forwards(), Some(Ok(70)));
        assert_eq!(m.values(Name::Route).next(), Some("<sip:203.0.113.5:5060;lr>"));
        assert_eq!(m.uri(), Some("sip:8006@pbx.example.com;transport=udp"));
        assert_eq!(m.validate(), Ok(()));
    });
    assert_eq!(count, 0);
}

#[test]
fn edits_allocate_only_their_target() {
    let mut out = Vec::with_capacity(2048);
    let count = allocations(|| {
        let m = Message::parse(INVITE).unwrap();
        let mut edit = Edit::new(&m);
        edit.insert_top(Name::Via, "SIP/2.0/UDP 203.0.113.5;branch=z9hG4bK1")
            .via_received(Some([203, 0, 113, 9].into()), Some(5066))
            .insert_top(Name::RecordRoute, "<sip:203.0.113.5;lr>")
            .pop_top(Name::Route)
            .replace_number(Name::MaxForwards, 69)
            .append_other("X-Trace", "1")
            .remove_all(Name::UserAgent);
        edit.write(&mut out);
    });
    assert_eq!(count, 0);
    let edited = Message::parse(&out).unwrap();
    assert_eq!(edited.values(Name::Via).count(), 2);
    assert!(edited.header(Name::Route).is_none());
}
