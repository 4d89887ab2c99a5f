//! Reading the configuration and the certificates again: when their files change, and when told to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Settings, TlsConfig};
use crate::tls::Tls;
use crate::updates::{Author, Updates};
use crate::watch::Watched;

/// How often files are looked at. A change is in force after two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Reads the configuration file and the certificates of a running server again.
#[derive(Debug, Clone)]
pub struct Reread {
    updates: Arc<Updates>,
    tls: Vec<Arc<Tls>>,
}

impl Reread {
    pub(crate) fn of(updates: Arc<Updates>, tls: Vec<Arc<Tls>>) -> Self {
        Self { updates, tls }
    }

    /// Reads both, as SIGHUP asks. What comes of it is in the log.
    pub async fn by_signal(&self) {
        self.settings(Author::Signal).await;
        self.certificates();
    }

    /// Reads what has changed whenever it has.
    pub(crate) async fn when_files_change(&self) {
        let settings = self.updates.settings();
        let mut file = Watched::new(vec![settings.file().to_owned()]);
        let mut certificates = Watched::new(files(&settings.config().tls));
        // What changed while the models were loading.
        self.settings(Author::File).await;
        self.certificates();
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            if file.has_changed() {
                self.settings(Author::File).await;
            }
            if certificates.has_changed() {
                self.certificates();
            }
        }
    }

    async fn settings(&self, author: Author) {
        let updates = Arc::clone(&self.updates);
        // Models may have to be loaded. Why an update was refused, the log says.
        let _ = tokio::task::spawn_blocking(move || updates.apply(&author, Settings::reread)).await;
    }

    fn certificates(&self) {
        for tls in &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("certificates read again"),
                Err(error) => tracing::error!(%error, "certificates refused; those in force stay in force"),
            }
        }
    }
}

fn files(config: &TlsConfig) -> Vec<PathBuf> {
    [&config.certificate, &config.key, &config.client_ca].into_iter().flatten().cloned().collect()
}
