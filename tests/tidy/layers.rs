//! Imports go one way, and the core knows no clock, no IO, no unseeded randomness.

use crate::sources::{Source, below};

/// What a layer must never name.
struct Layer {
    folder: &'static str,
    /// Files below `folder` that belong to another layer.
    except: &'static [&'static str],
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
    Layer { folder: "src/core", except: &[], banned: IMPURE },
    Layer { folder: "src/core/overlay", except: &[], banned: &["crate::media"] },
    Layer { folder: "src/core/media", except: &[], banned: &["crate::overlay"] },
    Layer {
        folder: "src/node",
        except: &[],
        banned: &["crate::edge", "crate::api", "crate::cli", "astral_pipelines", "gstreamer", "axum"],
    },
    Layer {
        folder: "src/edge",
        except: &[],
        banned: &["crate::api", "crate::cli", "libp2p", "gstreamer::"],
    },
    Layer { folder: "src/api", except: &[], banned: &["crate::cli", "libp2p", "gstreamer"] },
    Layer { folder: "src/cli", except: &[], banned: &["libp2p::", "gstreamer::"] },
    Layer { folder: "pipelines", except: &[], banned: &["astral::", "astral_core", "libp2p"] },
    Layer { folder: "netsim", except: &[], banned: &["libp2p", "tokio", "gstreamer", "HashMap"] },
];

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
                .filter(|s| !layer.except.contains(&s.path.as_str()))
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
