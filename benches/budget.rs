//! Instructions that the hot path costs, counted by callgrind and compared with `budget.txt`.
//!
//! Owns the counting: the same work is done N and 2 N times, and the difference divided by N is the
//! cost of one, without start-up and set-up. Signatures and copies of payloads are not in it: they
//! follow the processor. Needs `valgrind`; times are noisy, counts are not.
//!
//! `make budget` compares; `make budget ARGS=--write` writes the file anew, for a change that is
//! meant to cost more or less.

#[path = "support/hot_path.rs"]
mod hot_path;

use std::{collections::BTreeMap, fs, hint::black_box, process::Command};

use hot_path::{CHUNKS_PER_PICTURE, Forwarding, Made, parse, read_flv};

/// Where the figures are kept, below this package's own folder.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/budget.txt");
/// How far a count may be from the kept one.
const TOLERANCE_PERCENT: u64 = 10;
/// Pieces of work: its name, and how often it is done at least.
const WORK: [(&str, u64); 4] = [
    ("parse one chunk", 2_000),
    ("read a tag of 20 bytes", 1_000),
    ("a picture to 1 child", 200),
    ("a picture to 50 children", 60),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", name, times] => run(name, times.parse().expect("a number")),
        ["--write"] => write(&measure()),
        [] => compare(&measure()),
        _ => panic!("nothing, or --write"),
    }
}

fn run(name: &str, times: u64) {
    let made = Made::stream();
    // The longest run's pictures, whatever is done with them, so that their making cancels out.
    let pictures = made.pictures(2 * 200);
    made.verify(&pictures[0]);
    made.verify_together(&pictures[..2]);
    let picture = |number: u64| {
        let from = usize::try_from(number * CHUNKS_PER_PICTURE).expect("small");
        &pictures[from..from + usize::try_from(CHUNKS_PER_PICTURE).expect("small")]
    };
    match name {
        "parse one chunk" => (0..times).for_each(|number| {
            black_box(parse(pictures[usize::try_from(number).expect("small")].frame()));
        }),
        "read a tag of 20 bytes" => {
            let tags = u32::try_from(times).expect("small");
            assert_eq!(read_flv(&Made::flv(tags, 20)) as u64, times);
        }
        "a picture to 1 child" | "a picture to 50 children" => {
            let children = if name.ends_with("50 children") { 50 } else { 1 };
            let mut node = Forwarding::to(children, &made);
            for number in 0..times {
                let sent = node.picture(picture(number));
                assert!(sent >= 14 * 1_200 * usize::from(children), "every child got all of it");
            }
        }
        _ => panic!("no work of the name {name}"),
    }
}

fn measure() -> BTreeMap<String, u64> {
    let cost = |(name, times): (&str, u64)| {
        let each = (instructions(name, 2 * times) - instructions(name, times)) / times;
        println!("{name:<26} {each:>9} instructions");
        (name.to_owned(), each)
    };
    WORK.into_iter().map(cost).collect()
}

/// What callgrind counts for the whole process.
fn instructions(name: &str, times: u64) -> u64 {
    let this = std::env::current_exe().expect("own path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["run", name, &times.to_string()])
        .output()
        .expect("valgrind, from the package of that name");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split("Collected :").nth(1));
    count.and_then(|count| count.trim().parse().ok()).expect("callgrind's count")
}

fn write(measured: &BTreeMap<String, u64>) {
    let lines: String = measured.iter().map(|(name, count)| format!("{name}: {count}\n")).collect();
    fs::write(FILE, lines).expect("benches/budget.txt");
}

fn compare(measured: &BTreeMap<String, u64>) {
    let kept = fs::read_to_string(FILE).expect("benches/budget.txt");
    let mut broken = Vec::new();
    for line in kept.lines() {
        let (name, count) = line.rsplit_once(": ").expect("`name: count`");
        let count: u64 = count.parse().expect("a number");
        let now = measured.get(name).copied().expect("work that is still there");
        if now.abs_diff(count) * 100 > count * TOLERANCE_PERCENT {
            broken.push(format!("{name}: {now}, not {count}"));
        }
    }
    assert!(broken.is_empty(), "beyond {TOLERANCE_PERCENT} %: {broken:#?}");
    println!("all within {TOLERANCE_PERCENT} % of benches/budget.txt");
}
