//! Figures of one moment, as a collector of the metrics library.
//!
//! Owns grouping figures by name. Does not own what they mean nor their text.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::api::history::GAP_BOUNDS_S;

/// Label names and values.
type Labels = Vec<(String, String)>;

/// Figures of one moment.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    metrics: BTreeMap<&'static str, Metric>,
}

#[derive(Debug)]
struct Metric {
    help: &'static str,
    figures: Vec<(Labels, Figure)>,
}

#[derive(Debug)]
enum Figure {
    Counter(u64),
    Gauge(f64),
    Histogram { sum: f64, buckets: Vec<(f64, u64)> },
}

impl Sheet {
    /// A total since the start; its name gets `_total` in the text.
    pub(super) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: u64,
    ) {
        self.add(name, help, labels, Figure::Counter(value));
    }

    /// A value that goes up and down.
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        self.add(name, help, labels, Figure::Gauge(value));
    }

    /// Gaps by [`GAP_BOUNDS_S`], not cumulated, the last beyond all bounds.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        counts: &[u64],
        sum: f64,
    ) {
        let bounds = GAP_BOUNDS_S.iter().copied().chain([f64::MAX]);
        let buckets = bounds.zip(counts.iter().copied()).collect();
        self.add(name, help, labels, Figure::Histogram { sum, buckets });
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        figure: Figure,
    ) {
        let metric = self.metrics.entry(name).or_insert_with(|| Metric { help, figures: vec![] });
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        metric.figures.push((labels.iter().map(owned).collect(), figure));
    }
}

impl Figure {
    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Histogram { sum, buckets } => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
        }
    }
}

impl Collector for Sheet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, metric) in &self.metrics {
            let kind = match metric.figures.first() {
                Some((_, Figure::Counter(_))) => MetricType::Counter,
                Some((_, Figure::Histogram { .. })) => MetricType::Histogram,
                Some((_, Figure::Gauge(_))) | None => MetricType::Gauge,
            };
            let mut encoder = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for (labels, figure) in &metric.figures {
                if labels.is_empty() {
                    figure.encode(&mut encoder)?;
                } else {
                    figure.encode(&mut encoder.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}
