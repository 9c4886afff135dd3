//! The guest's `/init`.

fn main() {
    zbd_tests::inside::init::main();
}
