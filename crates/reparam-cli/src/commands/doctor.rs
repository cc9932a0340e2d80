//! `reparam doctor`.

use std::path::PathBuf;

use reparam_kernels::KernelError;
use reparam_kernels::capabilities::{
    capabilities, measure_matmul_gflops, measure_packed_gflops, measure_pair_limit_gflops,
};
use reparam_train::{Runtime, TrainError};
use serde::Serialize;
use serde_json::{Map, Value};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::env_vars::Environment;
use crate::error::CliError;
use crate::format::bytes;
use crate::output::Printer;

/// What is found on the machine; sizes are in bytes.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    system: SystemReport,
    cpu: CpuReport,
    memory: MemoryReport,
    disk: DiskReport,
    /// What the kernels can use.
    kernels: Map<String, Value>,
    /// The environment variables that are set and read.
    environment: Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct SystemReport {
    /// The name and the version of the operating system.
    os: Option<String>,
    kernel: Option<String>,
    architecture: &'static str,
}

#[derive(Debug, Serialize)]
struct CpuReport {
    model: Option<String>,
    physical_cores: Option<usize>,
    logical_cores: usize,
    /// The cores that this process may use.
    available_cores: Option<usize>,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    total_bytes: u64,
    available_bytes: u64,
    /// The most that a container leaves to this process, if it is less than `total_bytes`.
    limit_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DiskReport {
    /// The current directory, which relative run directories go to.
    path: PathBuf,
    free_bytes: Option<u64>,
}

/// Prints what there is to compute with.
pub(crate) fn run(
    environment: &Environment,
    runtime: &Runtime,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let kernels = runtime.run(kernels).map_err(TrainError::from)?;
    let report = report(environment, kernels);
    if printer.is_json() {
        return printer.json(&report);
    }
    let unknown = || "unknown".to_owned();
    let cores = |n: Option<usize>| n.map_or_else(unknown, |n| n.to_string());
    printer.row("reparam", report.version)?;
    printer.row("system", &report.system.os.unwrap_or_else(unknown))?;
    printer.row("kernel", &report.system.kernel.unwrap_or_else(unknown))?;
    printer.row("processor", &report.cpu.model.unwrap_or_else(unknown))?;
    printer.row(
        "cores",
        &format!(
            "{} physical, {} logical, {} available ({})",
            cores(report.cpu.physical_cores),
            report.cpu.logical_cores,
            cores(report.cpu.available_cores),
            report.system.architecture
        ),
    )?;
    let limit = report.memory.limit_bytes.map_or_else(String::new, |limit| {
        format!(", limited to {}", bytes(limit))
    });
    printer.row(
        "memory",
        &format!(
            "{} available of {}{limit}",
            bytes(report.memory.available_bytes),
            bytes(report.memory.total_bytes)
        ),
    )?;
    printer.row(
        "disk",
        &format!(
            "{} free in {}",
            report.disk.free_bytes.map_or_else(unknown, bytes),
            report.disk.path.display()
        ),
    )?;
    section("kernels", &report.kernels, printer)?;
    section("environment", &report.environment, printer)
}

/// A title with a name and a value a line, or nothing if there are none.
fn section(
    title: &str,
    values: &Map<String, Value>,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    if values.is_empty() {
        return Ok(());
    }
    printer.line(title)?;
    for (name, value) in values {
        printer.line(&format!("  {name:<20} {}", value.as_str().unwrap_or("")))?;
    }
    Ok(())
}

fn report(environment: &Environment, kernels: [(&'static str, String); 9]) -> Report {
    let system = System::new_with_specifics(
        RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram()),
    );
    let limit = system.cgroup_limits().map(|limits| limits.total_memory);
    let path = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let texts = |(name, value): (&str, String)| (name.to_owned(), Value::String(value));
    Report {
        version: env!("CARGO_PKG_VERSION"),
        system: SystemReport {
            os: System::long_os_version(),
            kernel: System::kernel_version(),
            architecture: std::env::consts::ARCH,
        },
        cpu: CpuReport {
            model: system
                .cpus()
                .first()
                .map(|cpu| cpu.brand().trim().to_owned())
                .filter(|brand| !brand.is_empty()),
            physical_cores: System::physical_core_count(),
            logical_cores: system.cpus().len(),
            available_cores: std::thread::available_parallelism().ok().map(Into::into),
        },
        memory: MemoryReport {
            total_bytes: system.total_memory(),
            available_bytes: system.available_memory(),
            limit_bytes: limit.filter(|limit| *limit < system.total_memory()),
        },
        disk: DiskReport {
            free_bytes: fs4::available_space(&path).ok(),
            path,
        },
        kernels: kernels.into_iter().map(texts).collect(),
        environment: environment.shown().map(texts).collect(),
    }
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
