//! In a guest. Each test looks up the result of its scenario in the one boot that its machine's
//! tests share.

macro_rules! tests {
    ($($machine:ident { $($theme:ident { $($name:ident),+ $(,)? })+ })+) => {
        $(mod $machine {
            use std::sync::OnceLock;
            use zbd_tests::guest::boot::Boot;
            use zbd_tests::guest::machine;

            fn boot() -> &'static Boot {
                static BOOT: OnceLock<Result<Boot, String>> = OnceLock::new();
                let boot = BOOT.get_or_init(|| {
                    Boot::run(&machine::$machine).map_err(|error| format!("{error:#}"))
                });
                match boot {
                    Ok(boot) => boot,
                    Err(reason) => panic!("{reason}"),
                }
            }

            $(mod $theme {
                $(
                    #[test]
                    #[ignore = "boots a QEMU guest: run `cargo xtask test`"]
                    fn $name() {
                        super::boot().check(concat!(
                            stringify!($machine), "::", stringify!($theme), "::", stringify!($name)
                        ));
                    }
                )+
            })+
        })+
    };
}

zbd_tests::guest_scenarios!(tests);
