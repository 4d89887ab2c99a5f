//! How an NVIDIA device does, as its driver tells: utilisation, memory, temperature and power.

use std::fmt;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

/// Asks the NVIDIA driver about one device. Its library is loaded when a monitor is opened.
///
/// # Examples
/// ```
/// use volley_gpu_runtime::DeviceMonitor;
///
/// match DeviceMonitor::open(0).and_then(|monitor| monitor.sample()) {
///     Ok(sample) => println!("{} of {} bytes", sample.memory_used_bytes, sample.memory_total_bytes),
///     Err(error) => println!("{error}"), // For example: no NVIDIA driver on this machine.
/// }
/// ```
#[derive(Debug)]
pub struct DeviceMonitor {
    driver: Nvml,
    index: u32,
}

/// What a device said at one moment. What it does not measure is `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeviceSample {
    /// Share of the driver's last sample period, at most a second, in which a kernel was running.
    pub utilization_percent: Option<f64>,
    /// Memory in use, by any process.
    pub memory_used_bytes: u64,
    /// Memory there is.
    pub memory_total_bytes: u64,
    /// Temperature of the chip.
    pub temperature_celsius: Option<f64>,
    /// Power that the board takes.
    pub power_watts: Option<f64>,
}

impl DeviceMonitor {
    /// A monitor of device `index`, counted from 0 as `nvidia-smi` counts them: by their places on the bus, and without
    /// regard to `CUDA_VISIBLE_DEVICES`.
    ///
    /// # Errors
    /// [`DeviceError`] where there is no NVIDIA driver or no such device.
    pub fn open(index: u32) -> Result<Self, DeviceError> {
        let fail = |reason| DeviceError { index, reason };
        let driver = Nvml::init().map_err(|source| fail(Reason::NoDriver(source)))?;
        let count = driver.device_count().map_err(|source| fail(Reason::Refused(source)))?;
        if index >= count {
            return Err(fail(Reason::NoDevice { count }));
        }
        Ok(Self { driver, index })
    }

    /// Asks the device.
    ///
    /// # Errors
    /// [`DeviceError`] when it does not answer, because it was lost for example.
    pub fn sample(&self) -> Result<DeviceSample, DeviceError> {
        self.ask().map_err(|source| DeviceError { index: self.index, reason: Reason::Refused(source) })
    }

    fn ask(&self) -> Result<DeviceSample, NvmlError> {
        let device = self.driver.device_by_index(self.index)?;
        let memory = device.memory_info()?;
        let utilization = measured(device.utilization_rates())?;
        Ok(DeviceSample {
            utilization_percent: utilization.map(|rates| f64::from(rates.gpu)),
            memory_used_bytes: memory.used,
            memory_total_bytes: memory.total,
            temperature_celsius: measured(device.temperature(TemperatureSensor::Gpu))?.map(f64::from),
            power_watts: measured(device.power_usage())?.map(|milliwatts| f64::from(milliwatts) / 1000.0),
        })
    }
}

/// `None` for what the device does not measure: a partition of one has no power of its own, for example.
fn measured<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotSupported | NvmlError::NoPermission | NvmlError::FailedToLoadSymbol(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A device cannot be monitored. The message says what is missing.
#[derive(Debug)]
pub struct DeviceError {
    index: u32,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    NoDriver(NvmlError),
    NoDevice { count: u32 },
    Refused(NvmlError),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NVIDIA device {} cannot be monitored: ", self.index)?;
        match &self.reason {
            Reason::NoDriver(NvmlError::LibloadingError(source)) => {
                write!(f, "the NVIDIA driver's library (NVML) cannot be loaded; is the driver installed? {source}")
            }
            Reason::NoDriver(source) => write!(f, "the NVIDIA driver does not start: {source}"),
            Reason::NoDevice { count } => write!(f, "the driver knows {count}, counted from 0"),
            Reason::Refused(source) => write!(f, "the driver says: {source}"),
        }
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::NoDriver(source) | Reason::Refused(source) => Some(source),
            Reason::NoDevice { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_answers_or_the_error_says_what_is_missing() {
        match DeviceMonitor::open(0) {
            Ok(monitor) => {
                let sample = monitor.sample().expect("a device that was found answers");
                assert!(sample.memory_used_bytes <= sample.memory_total_bytes, "{sample:?}");
                assert!(sample.utilization_percent.is_none_or(|percent| percent <= 100.0), "{sample:?}");
                let absent = DeviceMonitor::open(1000).expect_err("no machine has so many").to_string();
                assert!(absent.starts_with("NVIDIA device 1000 cannot be monitored: the driver knows "), "{absent}");
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.starts_with("NVIDIA device 0 cannot be monitored: the NVIDIA driver"), "{text}");
                assert!(!text.contains("cannot be loaded") || text.contains("libnvidia-ml.so.1"), "{text}");
            }
        }
    }

    #[test]
    fn what_a_device_does_not_measure_is_no_error_and_a_device_that_is_lost_is() {
        assert_eq!(measured(Ok(3)).expect("it was measured"), Some(3));
        assert_eq!(measured::<u32>(Err(NvmlError::NotSupported)).expect("no error"), None);
        assert!(measured::<u32>(Err(NvmlError::GpuLost)).is_err());
    }
}
