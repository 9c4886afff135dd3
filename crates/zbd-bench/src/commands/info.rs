//! `zbd-bench info`

use zbd_core::{DmaBuffer, Error, ErrorKind, IoQueue, Lifetime, Request, Result, parse_id};

use crate::{
    cli::InfoArgs,
    failure::{During, Failure},
    job::control,
    report::{self, device::Told},
};

/// Shows what is known of a device.
pub(crate) fn info(args: &InfoArgs) -> Result<(), Failure> {
    let (mut queue, _) = super::open(&args.device)?;
    let told = ask(&mut queue).map_err(|error| Failure::from_device(During::Use, &error))?;
    let info = queue.info().clone();
    drop(queue);
    report::device::info(&info, &told, args.format)
}

/// What only the device itself can tell, and may tell differently later.
fn ask(queue: &mut IoQueue) -> Result<Told> {
    let buffer = queue.buffer(Request::ID_LEN)?;
    let id = answer(queue, Request::GetId { buffer })?.map(|buffer| parse_id(&buffer));
    let lifetime = if queue.info().lifetime {
        let buffer = queue.buffer(Request::LIFETIME_LEN)?;
        answer(queue, Request::GetLifetime { buffer })?
            .map(|buffer| Lifetime::parse(&buffer))
            .transpose()?
    } else {
        None
    };
    Ok(Told::new(id, queue.write_cache()?, lifetime))
}

/// The buffer of a request that asks for something. That a device does not answer it is no failure.
fn answer(queue: &mut IoQueue, request: Request) -> Result<Option<DmaBuffer>> {
    match control::execute(queue, request) {
        Ok(done) => Ok(done.buffer),
        Err(error) if refused(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Medium)
}
