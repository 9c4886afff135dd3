//! Many tasks on one thread.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use tokio::runtime::Builder;
use zbd_core::{Sector, ZoneId, ZonedDevice};

use crate::{in_time::in_time, rig::Device};

#[test]
fn more_tasks_than_a_thread_submits_in_one_go_lose_nothing() {
    in_time(|| {
        let queue = Device::threaded("store=null,zones=4,zone-size=256m,queues=1").open_queue();
        let device = ZonedDevice::from_queue(queue).unwrap();
        let runtime = Builder::new_current_thread()
            .on_thread_park(zbd_core::on_thread_park)
            .build_local(Default::default())
            .unwrap();
        let given = Rc::new(RefCell::new(BTreeSet::new()));
        runtime.block_on(async {
            let tasks: Vec<_> = (0..300)
                .map(|_| {
                    let (device, given) = (device.clone(), Rc::clone(&given));
                    tokio::task::spawn_local(async move {
                        let mut buffer = device.wait_for_buffer(4096).await.unwrap();
                        for _ in 0..100 {
                            let done = device.append(ZoneId(0), buffer).await.unwrap();
                            let is_new = given.borrow_mut().insert(done.sector);
                            assert!(is_new, "{} was given out twice", done.sector);
                            buffer = done.buffer;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        // None of the places between the first and the last is left out.
        let given = given.borrow();
        assert_eq!(given.len(), 300 * 100);
        assert_eq!(given.last(), Some(&Sector(8 * (300 * 100 - 1))));
    });
}
