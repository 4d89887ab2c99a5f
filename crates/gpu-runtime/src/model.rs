//! A model file, read once, checked, and opened as many times as there are workers.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::Session as OrtSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::autotune::{self, Measured, powers_of_two};
use crate::company::Company;
use crate::config::{DeclaredTensor, ModelConfig};
use crate::error::{LoadError, LoadReason};
use crate::file::ModelFile;
use crate::golden::Golden;
use crate::headroom;
use crate::library::Library;
use crate::operators;
use crate::provider::{Placement, Provider, ProviderPreference};
use crate::record::{Record, Unfinished};
use crate::repository::{VariantFile, VersionFolder};
use crate::session::Session;
use crate::tensor::{DataType, TensorSpec};

/// Rows of the largest batch that may be asked for. Sessions keep something for each size up to the largest.
const MOST_ROWS: usize = 1 << 16;

/// How a model is run.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Rows of the largest batch. Buffers are made for this many.
    pub max_batch: NonZeroUsize,
    /// The batch sizes that will be used, each run once before a session is called warm. Empty: powers of two up to
    /// the largest, and the largest itself. Other sizes run too, and are slower the first time.
    pub batch_sizes: Vec<NonZeroUsize>,
    /// Threads within one operator. One is best when there is a worker for each core: two sessions of one thread do half
    /// again the work of one session of two.
    pub intra_op_threads: NonZeroUsize,
    /// Operators that run at once. More than one is only for graphs with parallel branches on a machine with idle cores.
    pub inter_op_threads: NonZeroUsize,
    /// Whether ONNX Runtime's idle threads spin before they sleep: a few microseconds less a run, for a core kept busy.
    /// Without effect where both thread counts are one.
    pub spinning: bool,
    /// Which execution providers to try.
    pub providers: ProviderPreference,
    /// Bytes that the CUDA provider's arena may take for each session; `None` is all that the device has. Other
    /// providers, and cuDNN's own workspaces, do not heed it.
    pub gpu_memory_limit: Option<usize>,
    /// Libraries of operators that the graph needs beside ONNX Runtime's own and this crate's. Their code runs in this
    /// process.
    pub operator_libraries: Vec<PathBuf>,
    /// Largest absolute difference from the golden outputs at which the model is still taken to be right.
    pub golden_tolerance: f32,
    /// The inputs that the file must have, whatever their order; `None` takes it as it is.
    pub inputs: Option<Vec<DeclaredTensor>>,
    /// The outputs that the file must have; it may have others. `None` takes it as it is.
    pub outputs: Option<Vec<DeclaredTensor>>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            max_batch: NonZeroUsize::new(32).expect("not zero"),
            batch_sizes: Vec::new(),
            intra_op_threads: NonZeroUsize::MIN,
            inter_op_threads: NonZeroUsize::MIN,
            spinning: false,
            providers: ProviderPreference::default(),
            gpu_memory_limit: None,
            operator_libraries: Vec::new(),
            golden_tolerance: 1e-3,
            inputs: None,
            outputs: None,
        }
    }
}

impl ModelOptions {
    /// These, and where `config` says something, what it says.
    ///
    /// # Errors
    /// A sentence that says which field of `config` is wrong, and what would be right.
    pub fn with(mut self, config: &ModelConfig) -> Result<Self, String> {
        config.check()?;
        let largest_size = config.batch_sizes.iter().flatten().max().copied();
        self.max_batch = config.max_batch.or(largest_size).unwrap_or(self.max_batch);
        if let Some(full) = config.full_batch.filter(|&full| full > self.max_batch) {
            return Err(format!("full_batch: {full}; expected at most the largest batch, {}", self.max_batch));
        }
        if let Some(sizes) = &config.batch_sizes {
            self.batch_sizes.clone_from(sizes);
        }
        if let Some(tolerance) = config.golden_tolerance {
            self.golden_tolerance = tolerance;
        }
        if let Some(names) = &config.providers {
            let ProviderPreference { require, device, .. } = self.providers;
            self.providers =
                ProviderPreference::of_names(names, require, device).map_err(|e| format!("providers: {e}"))?;
        }
        if let Some(libraries) = &config.operator_libraries {
            self.operator_libraries.clone_from(libraries);
        }
        self.inputs = config.inputs.clone().or(self.inputs);
        self.outputs = config.outputs.clone().or(self.outputs);
        Ok(self)
    }

    /// The batch sizes that will be used, ascending.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        if self.batch_sizes.is_empty() {
            return powers_of_two(self.max_batch.get()).collect();
        }
        self.batch_sizes.iter().map(|size| size.get()).collect()
    }

    fn check(&self) -> Result<(), String> {
        if self.max_batch.get() > MOST_ROWS {
            return Err(format!("a largest batch of {} rows; expected at most {MOST_ROWS}", self.max_batch));
        }
        if let Some(size) = self.batch_sizes.iter().find(|&&size| size > self.max_batch) {
            return Err(format!("a batch size of {size}; expected at most the largest batch, {}", self.max_batch));
        }
        Ok(())
    }
}

/// A model that was loaded and gave the right answers; [`Model::open_session`] makes something that runs it. A clone
/// shares the file's bytes.
///
/// # Examples
/// ```no_run
/// use std::path::{Path, PathBuf};
/// use volley_gpu_runtime::{Library, Model, ModelOptions, Repository};
///
/// let library = Library::load(None)?;
/// let repository = Repository::open(Path::new("models/repository"))?;
/// let version = repository.models[0].latest();
/// let model = Model::load(&library, version, &version.variants[0], ModelOptions::default())?;
/// let mut session = model.open_session()?;
/// session.write(0, 0, [&vec![0u8; model.inputs()[0].row_bytes()][..]]);
/// let outputs = session.run(1)?.rows(0..1);
/// println!("{} bytes of {}", outputs.tensor(0).len(), model.outputs()[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Model {
    library: Library,
    path: PathBuf,
    variant: Arc<str>,
    file: ModelFile,
    /// The file's graph as it was optimised at an earlier start, which sessions then open instead.
    graph: Option<Arc<[u8]>>,
    options: ModelOptions,
    placement: Placement,
    inputs: Arc<[TensorSpec]>,
    outputs: Arc<[TensorSpec]>,
    measured: Arc<[Measured]>,
    company: Company,
    /// Bytes by which the process grew with the first session, or those of the files if they are more.
    session_bytes: u64,
    /// See [`Model::runtime_bytes`].
    runtime: Arc<[Vec<u8>]>,
}

impl Model {
    /// Reads `variant` of `version`, finds the provider that runs it, checks it against the version's golden file, alone
    /// and in batches, so that what is called loaded is known to be right on this machine, and measures which batch size
    /// does the most rows per second here.
    ///
    /// # Errors
    /// [`LoadError`] when the file cannot be read or is no model, memory does not suffice, no provider starts, an axis
    /// other than the first is dynamic, or the golden outputs are not met.
    pub fn load(
        library: &Library,
        version: &VersionFolder,
        variant: &VariantFile,
        options: ModelOptions,
    ) -> Result<Self, LoadError> {
        Self::load_with(library, version, variant, options, Reuse::Kept)
    }

    /// Loads as [`Model::load`] does, but learns everything anew, and keeps that for later loads: what the batch sizes
    /// cost, and on the CPU the optimised graph. To be called where the machine is otherwise idle.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn compile(
        library: &Library,
        version: &VersionFolder,
        variant: &VariantFile,
        options: ModelOptions,
    ) -> Result<Self, LoadError> {
        Self::load_with(library, version, variant, options, Reuse::Nothing)
    }

    fn load_with(
        library: &Library,
        version: &VersionFolder,
        variant: &VariantFile,
        mut options: ModelOptions,
        reuse: Reuse,
    ) -> Result<Self, LoadError> {
        let path = &variant.path;
        let fail = |reason| LoadError { path: path.clone(), reason };
        options.check().map_err(|text| fail(LoadReason::Options(text)))?;
        // Read once: what is hashed, checked and served is one and the same, even if the file is replaced meanwhile.
        let file = ModelFile::read(path).map_err(fail)?;
        for operators in &mut options.operator_libraries {
            *operators = located(operators).map_err(|e| fail(LoadReason::NoOperators(operators.clone(), e)))?;
        }
        let before = headroom::resident();
        let probe = choose_provider(library, path, &file, &options, reuse)?;
        let kept = probe.graph.is_some();
        match Self::check(library, version, variant, &options, file, probe, before, reuse) {
            // The graph that was kept may be at fault, and not the file.
            Err(error) if kept => {
                tracing::warn!(path = %path.display(), %error, "the kept graph is not used; the file is optimised anew");
                Self::load_with(library, version, variant, options, Reuse::Nothing)
            }
            result => result,
        }
    }

    /// Holds a running model against what was declared of it and against its golden outputs, and measures it. `before` is
    /// what memory the process took before it ran.
    #[expect(clippy::too_many_arguments, reason = "they are what a model is made of")]
    fn check(
        library: &Library,
        version: &VersionFolder,
        variant: &VariantFile,
        options: &ModelOptions,
        file: ModelFile,
        probe: Probe,
        before: u64,
        reuse: Reuse,
    ) -> Result<Self, LoadError> {
        let path = &variant.path;
        let fail = |reason| LoadError { path: path.clone(), reason };
        let interface = |text| fail(LoadReason::Interface(text));
        let inputs = specs("input", probe.session.inputs()).map_err(interface)?;
        let outputs = specs("output", probe.session.outputs()).map_err(interface)?;
        declared("input", options.inputs.as_deref(), &inputs, Extra::Refused).map_err(interface)?;
        declared("output", options.outputs.as_deref(), &outputs, Extra::Allowed).map_err(interface)?;
        let mut model = Self {
            library: library.clone(),
            path: path.clone(),
            variant: variant.name.as_str().into(),
            file,
            graph: probe.graph.map(Into::into),
            options: options.clone(),
            placement: probe.placement,
            inputs,
            outputs,
            measured: Arc::new([]),
            company: Company::Unknown,
            session_bytes: 0,
            runtime: runtime_bytes(library, options).map_err(fail)?,
        };
        let mut session = model.bind(probe.session)?;
        let (golden_rows, golden) = match &version.golden {
            Some(file) => {
                let golden = Golden::read(file, &model.inputs, &model.outputs, &variant.name);
                let report = golden.and_then(|golden| golden.check(&mut session, model.options.golden_tolerance));
                let report = report.map_err(|e| fail(LoadReason::Golden(e)))?;
                (report.rows, report.to_string())
            }
            None => (0, "no golden file".to_owned()),
        };
        let reused = probe.measured.is_some();
        let (measured, steady) = match probe.measured {
            Some(measured) => (measured, true),
            None => {
                let found = autotune::measure(&mut session, &options.sizes()).map_err(|e| fail(LoadReason::Run(e)))?;
                (found.sizes, found.steady)
            }
        };
        model.measured = measured.into();
        model.company = match golden_rows {
            // They were held against its golden outputs, alone and in each other's company.
            2.. if model.options.max_batch.get() > 1 => Company::Indifferent,
            _ => Company::of(&mut session, &model.inputs, &model.outputs, &model.options.sizes()),
        };
        let in_files = model.file.parts().map(|part| part.len() as u64).sum();
        model.session_bytes = headroom::resident().saturating_sub(before).max(in_files);
        // ONNX Runtime may have written none, for a graph that it cannot write.
        let new_graph = probe.new_graph.and_then(|file| std::fs::read(&file.0).ok()).filter(|graph| !graph.is_empty());
        // Not before the check: what is kept comes from a file that is right.
        let keep = steady || reuse == Reuse::Nothing;
        let is_news = new_graph.is_some() || (keep && !reused);
        let graph = new_graph.as_deref().or(model.graph.as_deref());
        let written = is_news && probe.record.write(keep.then_some(&*model.measured), graph);
        // Why the next start may have to measure again.
        let measured = match (reused, keep, written) {
            (true, ..) => "at an earlier start",
            (false, false, _) => "now; not kept, as the machine was busy",
            (false, true, false) => "now; not kept, as no folder can be written",
            (false, true, true) => "now, and kept",
        };
        let (placement, best_batch) = (&model.placement, model.best_batch());
        tracing::info!(path = %path.display(), %placement, golden, best_batch, measured, "model loaded");
        Ok(model)
    }

    /// Refuses to open so many sessions where memory does not suffice for them, as far as the first one shows.
    pub(crate) fn check_headroom(&self, sessions: NonZeroUsize) -> Result<(), LoadError> {
        let needed = self.session_bytes.saturating_mul(sessions.get() as u64);
        headroom::check(needed).map_err(|reason| self.fail(reason))
    }

    /// Opens a session and runs each batch size that will be used once, so that the first request does not pay for what
    /// ONNX Runtime prepares on first use (see [`ModelOptions::batch_sizes`]).
    ///
    /// # Errors
    /// [`LoadError`] when the session cannot be made or a run fails.
    pub fn open_warm_session(&self) -> Result<Session, LoadError> {
        let mut session = self.open_session()?;
        for rows in self.options.sizes() {
            session.run(rows).map_err(|e| self.fail(LoadReason::Run(e)))?;
        }
        Ok(session)
    }

    /// Opens a session. Each worker has its own: a session is used by one thread at a time, without a lock.
    ///
    /// # Errors
    /// [`LoadError`] when ONNX Runtime cannot make the session.
    pub fn open_session(&self) -> Result<Session, LoadError> {
        let provider = self.placement.provider;
        let source = self.graph.as_deref().map_or(Source::File { file: &self.file, keep: None }, Source::Optimised);
        let session = build(&self.library, source, &self.options, provider)
            .map_err(|source| self.fail(LoadReason::Refused { provider, source }))?;
        self.bind(session)
    }

    fn bind(&self, session: OrtSession) -> Result<Session, LoadError> {
        let (provider, device) = (self.placement.provider, self.options.providers.device);
        let (max_batch, file) = (self.options.max_batch.get(), self.file.clone());
        Session::bind(session, &self.inputs, &self.outputs, max_batch, provider, device, file)
            .map_err(|source| self.fail(LoadReason::Refused { provider, source }))
    }

    fn fail(&self, reason: LoadReason) -> LoadError {
        LoadError { path: self.path.clone(), reason }
    }

    /// The model's inputs, in the order [`Session::write`] counts them.
    #[must_use]
    pub fn inputs(&self) -> &Arc<[TensorSpec]> {
        &self.inputs
    }

    /// The model's outputs, in the order of [`crate::Outputs::tensor`].
    #[must_use]
    pub fn outputs(&self) -> &Arc<[TensorSpec]> {
        &self.outputs
    }

    /// What really runs it.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The bytes of the model file, and of each file that tensors of it are in, for a digest.
    pub fn file_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.file.parts()
    }

    /// What its answers depend on beside its files, for the same digest: the libraries of its operators, and the versions of
    /// ONNX Runtime and of this crate.
    pub fn runtime_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.runtime.iter().map(AsRef::as_ref)
    }

    /// The name of the variant it is.
    #[must_use]
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// What was measured on this machine at load, by ascending batch size.
    #[must_use]
    pub fn measured(&self) -> &[Measured] {
        &self.measured
    }

    /// Whether the answer to a row depends on who else is in its batch, or on chance. Two golden rows and more were held
    /// against their outputs alone and in batches; else made-up rows are asked at load.
    #[must_use]
    pub fn company(&self) -> Company {
        self.company
    }

    /// The smallest batch that does nearly the most rows per second on this machine, as measured at load. Waiting for
    /// more rows than this gains nothing. The smallest of all where a row's answer depends on its [`company`](Self::company).
    #[must_use]
    pub fn best_batch(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.best().rows).unwrap_or(NonZeroUsize::MIN)
    }

    /// Rows per second of one session at the best batch: by this the fastest of several variants is chosen.
    #[must_use]
    pub fn rows_per_second(&self) -> f64 {
        self.best().rows_per_second()
    }

    /// Nobody's requests are computed together where that changes their answers.
    fn best(&self) -> Measured {
        let sizes = if self.company.may_be_shared() { self.measured.len() } else { self.measured.len().min(1) };
        autotune::best(&self.measured[..sizes])
    }

    /// Rows of the largest batch.
    #[must_use]
    pub fn max_batch(&self) -> NonZeroUsize {
        self.options.max_batch
    }
}

/// A path to the file for the system's loader, which would search its own folders for a bare name.
fn located(library: &Path) -> io::Result<PathBuf> {
    File::open(library)?;
    std::path::absolute(library)
}

/// Whether to use what an earlier start left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Kept,
    Nothing,
}

/// What a session is made from.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// The model file. The graph is optimised, and written to `keep` if that is given.
    File { file: &'a ModelFile, keep: Option<&'a Path> },
    /// A graph that was optimised before.
    Optimised(&'a [u8]),
}

/// The first session of a model, and what is to be known of its record.
struct Probe {
    session: OrtSession,
    placement: Placement,
    record: Record,
    measured: Option<Vec<Measured>>,
    /// The kept graph that the session was made from.
    graph: Option<Vec<u8>>,
    /// Where the graph was written that is to be kept.
    new_graph: Option<Unfinished>,
}

impl Probe {
    /// Opens the model on `provider`, from the graph that was kept if there is one, and else so that there will be.
    fn open(
        library: &Library,
        path: &Path,
        file: &ModelFile,
        options: &ModelOptions,
        provider: Provider,
        reuse: Reuse,
    ) -> ort::Result<Self> {
        let record = Record::of(path, file, library, options, provider);
        let kept = if reuse == Reuse::Kept { record.read() } else { None };
        let (measured, graph) = kept.map_or((None, None), |kept| (kept.measured, kept.graph));
        let made = graph.as_deref().and_then(|graph| {
            let session = build(library, Source::Optimised(graph), options, provider);
            session.inspect_err(|error| tracing::warn!(record = ?record, %error, "the kept graph is not used")).ok()
        });
        let (session, graph, new_graph) = match made {
            Some(session) => (session, graph, None),
            None => {
                // Other providers compile parts of the graph into what cannot be written.
                let new_graph = if provider == Provider::Cpu { record.new_graph() } else { None };
                let keep = new_graph.as_ref().map(|graph| graph.0.as_path());
                let session = build(library, Source::File { file, keep }, options, provider);
                match session {
                    Ok(session) => (session, None, new_graph),
                    // It may have been the writing that failed.
                    Err(_) if keep.is_some() => {
                        (build(library, Source::File { file, keep: None }, options, provider)?, None, None)
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let placement = Placement::of(&session, provider)?;
        Ok(Self { session, placement, record, measured, graph, new_graph })
    }
}

/// Opens the model on the first provider of the preference that starts and takes nodes of it.
fn choose_provider(
    library: &Library,
    path: &Path,
    file: &ModelFile,
    options: &ModelOptions,
    reuse: Reuse,
) -> Result<Probe, LoadError> {
    let fail = |reason| LoadError { path: path.into(), reason };
    let mut passed_over = Vec::new();
    for &provider in &options.providers.order {
        let failure = match provider.missing_from_library() {
            Some(reason) => reason.to_owned(),
            None => match Probe::open(library, path, file, options, provider, reuse) {
                Ok(probe) if probe.placement.is_confirmed() => {
                    report_passed_over(path, &passed_over, provider);
                    return Ok(probe);
                }
                Ok(probe) => format!("it took no node of the graph ({})", probe.placement),
                // On the CPU nothing but the model itself can be at fault.
                Err(source) if provider == Provider::Cpu => return Err(fail(LoadReason::Refused { provider, source })),
                Err(source) => source.to_string(),
            },
        };
        passed_over.push((provider, failure));
        if options.providers.require {
            break;
        }
    }
    Err(fail(LoadReason::NoProvider(passed_over)))
}

/// A library without a provider is how most machines without a GPU look; one that has it and cannot start it is a fault.
fn report_passed_over(path: &Path, passed_over: &[(Provider, String)], using: Provider) {
    /// What was told to be missing: a process has one library, so it is missing for every model.
    static TOLD: Mutex<Vec<Provider>> = Mutex::new(Vec::new());
    for (skipped, reason) in passed_over {
        if skipped.missing_from_library().is_none() {
            tracing::warn!(path = %path.display(), %skipped, reason, %using, "execution provider not available");
            continue;
        }
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains(skipped) {
            told.push(*skipped);
            tracing::info!(%skipped, reason, %using, "execution provider not available");
        }
    }
}

fn build(library: &Library, source: Source<'_>, options: &ModelOptions, provider: Provider) -> ort::Result<OrtSession> {
    let (bytes, level, keep) = match source {
        Source::File { file, keep } => (&*file.bytes, GraphOptimizationLevel::All, keep),
        Source::Optimised(graph) => (graph, GraphOptimizationLevel::Disable, None),
    };
    let engines = if provider == Provider::TensorRt { Record::engines() } else { None };
    let mut builder = SessionBuilder::new(&library.environment)?
        .with_optimization_level(level)?
        .with_intra_threads(options.intra_op_threads.get())?
        .with_inter_threads(options.inter_op_threads.get())?
        .with_parallel_execution(options.inter_op_threads > NonZeroUsize::MIN)?
        .with_intra_op_spinning(options.spinning)?
        .with_inter_op_spinning(options.spinning)?
        .with_config_entry(Placement::RECORD_KEY, "1")?
        .with_execution_providers(provider.dispatch(
            options.providers.device,
            options.gpu_memory_limit,
            engines.as_deref(),
        ))?;
    if let Some(path) = keep {
        builder = builder.with_optimized_model_path(path)?;
    }
    if let Source::File { file, .. } = source {
        for (name, bytes) in &*file.external {
            builder = builder.with_external_initializer_file_in_memory(name, Arc::clone(bytes))?;
        }
    }
    operators::open_session(builder, &options.operator_libraries, bytes)
}

/// Whether a file may have tensors that were not declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    Allowed,
    Refused,
}

/// Holds what the file has against what was declared of it.
fn declared(kind: &str, declared: Option<&[DeclaredTensor]>, found: &[TensorSpec], extra: Extra) -> Result<(), String> {
    let Some(declared) = declared else { return Ok(()) };
    let has = || found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(missing) = declared.iter().find(|declared| !found.iter().any(|spec| declared.allows(spec))) {
        return Err(format!("the configuration declares the {kind} {missing}; the file has {}", has()));
    }
    let undeclared = found.iter().find(|spec| !declared.iter().any(|declared| declared.name == spec.name));
    match undeclared {
        Some(spec) if extra == Extra::Refused => {
            Err(format!("the file has the {kind} {spec}, which the configuration does not declare"))
        }
        _ => Ok(()),
    }
}

/// The versions of what runs a model, and the libraries of its operators.
fn runtime_bytes(library: &Library, options: &ModelOptions) -> Result<Arc<[Vec<u8>]>, LoadReason> {
    let versions = [env!("CARGO_PKG_VERSION"), library.version()].map(|version| version.as_bytes().to_vec());
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| LoadReason::NoOperators(path.clone(), error));
    let libraries = options.operator_libraries.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(versions.into_iter().chain(libraries).collect())
}

fn specs(kind: &str, outlets: &[Outlet]) -> Result<Arc<[TensorSpec]>, String> {
    outlets.iter().map(|outlet| spec(kind, outlet)).collect()
}

fn spec(kind: &str, outlet: &Outlet) -> Result<TensorSpec, String> {
    let name = outlet.name();
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(format!("{kind} `{name}` is not a tensor"));
    };
    let dtype =
        data_type(*ty).ok_or_else(|| format!("{kind} `{name}` has the element type {ty}, which has no fixed size"))?;
    let [batch, row @ ..] = &shape[..] else {
        return Err(format!("{kind} `{name}` has no axes; expected a batch axis first"));
    };
    if *batch != -1 {
        return Err(format!("{kind} `{name}` has a first axis of {batch}; expected a dynamic batch axis"));
    }
    let row_shape =
        row.iter().map(|&axis| usize::try_from(axis)).collect::<Result<Vec<_>, _>>().map_err(|_| {
            format!("{kind} `{name}` has the shape {:?}; only the first axis may be dynamic", &shape[..])
        })?;
    Ok(TensorSpec { name: name.to_owned(), dtype, row_shape })
}

fn data_type(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::Bfloat16 => DataType::Bf16,
        _ => return None,
    })
}

pub(crate) fn element_type(dtype: DataType) -> TensorElementType {
    match dtype {
        DataType::Bool => TensorElementType::Bool,
        DataType::Uint8 => TensorElementType::Uint8,
        DataType::Uint16 => TensorElementType::Uint16,
        DataType::Uint32 => TensorElementType::Uint32,
        DataType::Uint64 => TensorElementType::Uint64,
        DataType::Int8 => TensorElementType::Int8,
        DataType::Int16 => TensorElementType::Int16,
        DataType::Int32 => TensorElementType::Int32,
        DataType::Int64 => TensorElementType::Int64,
        DataType::Fp16 => TensorElementType::Float16,
        DataType::Fp32 => TensorElementType::Float32,
        DataType::Fp64 => TensorElementType::Float64,
        DataType::Bf16 => TensorElementType::Bfloat16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_leaves_out_is_held_against_what_holds_without_it() {
        let with = |config: &str| {
            let config: ModelConfig = toml::from_str(config).expect("the types are right");
            ModelOptions::default().with(&config)
        };
        let sizes = with("batch_sizes = [1, 8]").expect("the largest size is the largest batch");
        assert_eq!((sizes.max_batch.get(), sizes.sizes()), (8, vec![1, 8]));
        let error = with("full_batch = 33").expect_err("the largest batch is 32");
        assert_eq!(error, "full_batch: 33; expected at most the largest batch, 32");
    }
}
