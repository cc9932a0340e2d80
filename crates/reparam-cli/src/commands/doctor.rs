//! `reparam doctor`.

use std::path::PathBuf;

use reparam_kernels::KernelError;
use reparam_kernels::capabilities::{
    capabilities, measure_matmul_gflops, measure_packed_gflops, measure_pair_limit_gflops,
};
use reparam_train::{Runtime, TrainError};
use serde_json::{Map, Value, json};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::env_vars::Environment;
use crate::error::Result;
use crate::format::bytes;
use crate::output::Printer;

/// Prints what there is to compute with.
pub(crate) fn run(
    environment: &Environment,
    runtime: &Runtime,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let kernels = runtime.run(kernels).map_err(TrainError::from)?;
    let system = System::new_with_specifics(
        RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram()),
    );
    let version = env!("CARGO_PKG_VERSION");
    let (os, kernel) = (System::long_os_version(), System::kernel_version());
    let architecture = std::env::consts::ARCH;
    let model = system.cpus().first().map(|cpu| cpu.brand().trim());
    let model = model.filter(|brand| !brand.is_empty());
    let (physical, logical) = (System::physical_core_count(), system.cpus().len());
    // The cores that this process may use.
    let available = std::thread::available_parallelism();
    let available: Option<usize> = available.ok().map(Into::into);
    let (total, free) = (system.total_memory(), system.available_memory());
    // The most that a container leaves to this process.
    let limit = system.cgroup_limits().map(|limits| limits.total_memory);
    let limit = limit.filter(|limit| *limit < total);
    // The current directory, which relative run directories go to.
    let path = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let free_disk = fs4::available_space(&path).ok();
    let texts = |(name, value): (&str, String)| (name.to_owned(), Value::String(value));
    let kernels: Map<String, Value> = kernels.into_iter().map(texts).collect();
    let environment: Map<String, Value> = environment.shown().map(texts).collect();
    if printer.is_json() {
        return printer.json(&json!({
            "version": version,
            "system": { "os": os, "kernel": kernel, "architecture": architecture },
            "cpu": {
                "model": model,
                "physical_cores": physical,
                "logical_cores": logical,
                "available_cores": available,
            },
            "memory": { "total_bytes": total, "available_bytes": free, "limit_bytes": limit },
            "disk": { "path": path.to_string_lossy(), "free_bytes": free_disk },
            "kernels": kernels,
            "environment": environment,
        }));
    }
    let unknown = || "unknown".to_owned();
    let cores = |n: Option<usize>| n.map_or_else(unknown, |n| n.to_string());
    let limit = limit.map_or_else(String::new, |limit| {
        format!(", limited to {}", bytes(limit))
    });
    let rows = [
        ("reparam", version.to_owned()),
        ("system", os.unwrap_or_else(unknown)),
        ("kernel", kernel.unwrap_or_else(unknown)),
        ("processor", model.map_or_else(unknown, str::to_owned)),
        (
            "cores",
            format!(
                "{} physical, {logical} logical, {} available ({architecture})",
                cores(physical),
                cores(available),
            ),
        ),
        (
            "memory",
            format!("{} available of {}{limit}", bytes(free), bytes(total)),
        ),
        (
            "disk",
            format!(
                "{} free in {}",
                free_disk.map_or_else(unknown, bytes),
                path.display()
            ),
        ),
    ];
    for (label, value) in rows {
        printer.row(label, &value)?;
    }
    section("kernels", &kernels, printer)?;
    section("environment", &environment, printer)
}

/// A title with a name and a value a line, or nothing if there are none.
fn section(title: &str, values: &Map<String, Value>, printer: &mut Printer<'_>) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    printer.line(title)?;
    for (name, value) in values {
        printer.line(&format!("  {name:<20} {}", value.as_str().unwrap_or("")))?;
    }
    Ok(())
}

/// What the kernels can use of this machine, and how fast they are.
fn kernels() -> [(&'static str, String); 9] {
    let found = capabilities();
    let names: Vec<&str> = found.available.iter().map(|isa| isa.name()).collect();
    let speed = |measured: Result<f64, KernelError>, what: &str| match measured {
        Ok(gflops) => format!("{gflops:.0} GFLOP/s ({what}, measured)"),
        Err(error) => error.to_string(),
    };
    [
        ("features", found.features.join(" ")),
        ("instruction sets", names.join(", ")),
        ("row kernels", found.row_kernels),
        ("matrix kernels", found.matrix_kernels),
        ("threads", found.threads.to_string()),
        ("bf16 kernels", found.packed_kernels),
        (
            "speed",
            speed(measure_matmul_gflops(), "f32 matrix product"),
        ),
        (
            "bf16 speed",
            speed(measure_packed_gflops(), "bf16 matrix product"),
        ),
        (
            "bf16 limit",
            speed(measure_pair_limit_gflops(), "registers alone"),
        ),
    ]
}
