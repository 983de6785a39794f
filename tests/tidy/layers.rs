//! Imports go one way, and the core knows no clock, no IO, no unseeded randomness.

use crate::sources::{Source, below};

/// What a layer must never name.
struct Layer {
    folder: &'static str,
    banned: &'static [&'static str],
}

const IMPURE: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "tokio",
    "futures",
    "libp2p",
    "gstreamer",
    "axum",
    "getrandom",
    "OsRng",
    "thread_rng",
    "rand::rng",
    "println!",
];

const LAYERS: &[Layer] = &[
    Layer { folder: "src/core", banned: IMPURE },
    Layer { folder: "src/core/overlay", banned: &["crate::media"] },
    Layer { folder: "src/core/media", banned: &["crate::overlay"] },
    Layer {
        folder: "src/node",
        banned: &[
            "crate::edge",
            "crate::api",
            "crate::cli",
            "astral_pipelines",
            "gstreamer",
            "axum",
        ],
    },
    Layer { folder: "src/edge", banned: &["crate::api", "crate::cli", "libp2p", "gstreamer::"] },
    Layer { folder: "src/api", banned: &["crate::cli", "libp2p", "gstreamer"] },
    Layer { folder: "src/cli", banned: &["libp2p::", "gstreamer::"] },
    Layer { folder: "pipelines", banned: &["astral::", "astral_core", "libp2p"] },
    Layer { folder: "netsim", banned: &["libp2p", "tokio", "gstreamer", "HashMap"] },
];

/// Modules that are compiled for tests alone.
fn is_test(path: &str) -> bool {
    let folders = ["/tests/", "/stories/", "/hostile/"];
    let files = ["tests.rs", "testnet.rs", "testing.rs", "fixtures.rs", "stories.rs", "hostile.rs"];
    folders.iter().any(|f| path.contains(f)) || files.iter().any(|f| path.ends_with(f))
}

fn offends(source: &Source, layer: &Layer) -> Vec<String> {
    let code = source.code();
    layer
        .banned
        .iter()
        .filter(|banned| code.contains(**banned))
        .map(|banned| format!("{} names {banned}", source.path))
        .collect()
}

#[test]
fn imports_go_one_way_and_the_core_is_pure() {
    let offences: Vec<String> = LAYERS
        .iter()
        .flat_map(|layer| {
            below(layer.folder)
                .into_iter()
                .filter(|source| !is_test(&source.path))
                .flat_map(|source| offends(&source, layer))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn the_check_itself_sees_an_offence() {
    let source = Source {
        path: "src/core/x.rs".into(),
        text: "//! x\nuse std::time::Instant;\n#[cfg(test)]\nmod tests { use tokio; }".into(),
    };
    assert_eq!(offends(&source, &LAYERS[0]), ["src/core/x.rs names Instant"]);
}
