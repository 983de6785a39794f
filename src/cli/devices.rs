//! `astral devices`: what `--camera`, `--mic` and `--screen` can name.

use astral_pipelines::{Device, DeviceKind};
use clap::Args;
use serde_json::json;

use crate::api::dto::DeviceDto;

/// Flags of `astral devices`.
#[derive(Args, Debug)]
pub struct DevicesArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Lists the devices that GStreamer sees.
///
/// # Errors
/// When GStreamer can't start.
pub fn run(args: &DevicesArgs) -> anyhow::Result<()> {
    let devices = astral_pipelines::devices()?;
    if args.json {
        let list: Vec<_> = devices
            .iter()
            .map(|d| json!({"kind": kind(d), "id": d.id, "name": d.name, "modes": d.modes}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    for wanted in [DeviceKind::Camera, DeviceKind::Microphone, DeviceKind::Screen] {
        let found: Vec<&Device> = devices.iter().filter(|d| d.kind == wanted).collect();
        println!("{}", heading(wanted, found.len()));
        for device in found {
            println!("  {:<24} {}", device.id, device.name);
            for mode in &device.modes {
                println!("  {:<24}   {mode}", "");
            }
        }
    }
    Ok(())
}

/// The same devices, as the API lists them.
///
/// # Errors
/// When GStreamer can't start, in words.
pub fn for_api() -> Result<Vec<DeviceDto>, String> {
    let devices = astral_pipelines::devices().map_err(|error| error.to_string())?;
    let device = |device: Device| DeviceDto {
        kind: kind(&device).to_owned(),
        id: device.id,
        name: device.name,
        modes: device.modes.iter().map(ToString::to_string).collect(),
    };
    Ok(devices.into_iter().map(device).collect())
}

fn kind(device: &Device) -> &'static str {
    match device.kind {
        DeviceKind::Camera => "camera",
        DeviceKind::Microphone => "microphone",
        DeviceKind::Screen => "screen",
    }
}

fn heading(kind: DeviceKind, count: usize) -> String {
    let (plural, hint) = match kind {
        DeviceKind::Camera => ("Cameras (publish --camera ID)", "plug one in, or try --test"),
        DeviceKind::Microphone => ("Microphones (--mic ID)", "--mic none publishes without sound"),
        DeviceKind::Screen => ("Screens (publish --screen)", "no display in this session"),
    };
    if count == 0 { format!("{plural}: none; {hint}") } else { format!("{plural}:") }
}
