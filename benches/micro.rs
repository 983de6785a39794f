//! Time of the pieces that forwarding is made of, one by one.
//!
//! Owns nothing but the list; the work is in `support/hot_path.rs`. `cargo bench -p astral-core
//! --bench micro`.

#[path = "support/deciding.rs"]
mod deciding;
#[path = "support/hot_path.rs"]
mod hot_path;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use deciding::Deciding;
use hot_path::{CHUNKS_PER_PICTURE, Forwarding, Made, parse, read_flv};

fn chunks(bench: &mut Criterion) {
    let made = Made::stream();
    let chunk = &made.pictures(1)[0];
    let mut group = bench.benchmark_group("chunk of 1.2 KB");
    group.throughput(Throughput::Elements(1));
    group.bench_function("seal", |b| b.iter(|| made.seal(black_box(3), &[7; 1_200])));
    group.bench_function("parse", |b| b.iter(|| parse(black_box(chunk.frame()))));
    group.bench_function("verify", |b| b.iter(|| made.verify(black_box(chunk))));
    group.finish();
    let chunks = made.pictures(3);
    for together in [2, 4, 8, 14, 32] {
        let mut group = bench.benchmark_group(format!("{together} chunks of 1.2 KB"));
        group.throughput(Throughput::Elements(together as u64));
        let chunks = &chunks[..together];
        group.bench_function("verify together", |b| b.iter(|| made.verify_together(chunks)));
        group.finish();
    }
}

fn flv(bench: &mut Criterion) {
    let file = Made::flv(100, 16_800);
    let mut group = bench.benchmark_group("flv");
    group.throughput(Throughput::Bytes(file.len() as u64));
    group.bench_function("read", |b| b.iter(|| read_flv(black_box(&file))));
    group.finish();
}

fn relay(bench: &mut Criterion) {
    let made = Made::stream();
    let pictures = made.pictures(30);
    for children in [1_u16, 10, 50] {
        let mut group = bench.benchmark_group(format!("relay, {children} children"));
        group.throughput(Throughput::Elements(30 * CHUNKS_PER_PICTURE * u64::from(children)));
        group.bench_function("a second of 4 Mbit/s", |b| {
            b.iter_batched(
                || Forwarding::to(children, &made),
                |mut node| {
                    let second = pictures.chunks(CHUNKS_PER_PICTURE as usize);
                    second.map(|picture| node.picture(picture)).sum::<usize>()
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

fn overlay(bench: &mut Criterion) {
    for children in [10_u16, 50, 200] {
        let mut node = Deciding::with(children);
        let mut group = bench.benchmark_group(format!("overlay, {children} children"));
        group.throughput(Throughput::Elements(node.second()));
        group.bench_function("a second's inputs", |b| b.iter(|| node.second()));
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    chunks(&mut criterion);
    flv(&mut criterion);
    relay(&mut criterion);
    overlay(&mut criterion);
    criterion.final_summary();
}
