use super::*;

const FIRST: (&str, &str) =
    (include_str!("test-certificates/first-chain.pem"), include_str!("test-certificates/first-key.pem"));
const SECOND: (&str, &str) =
    (include_str!("test-certificates/second-chain.pem"), include_str!("test-certificates/second-key.pem"));
const ENCRYPTED: &str = include_str!("test-certificates/encrypted-key.pem");

struct TwoFiles {
    folder: tempfile::TempDir,
}

impl TwoFiles {
    fn with(certificate: &str, key: &str) -> TwoFiles {
        let files = TwoFiles { folder: tempfile::tempdir().unwrap() };
        files.write(certificate, key);
        files
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.certificate(), certificate).unwrap();
        std::fs::write(self.key(), key).unwrap();
    }

    fn load(&self) -> Result<Option<Arc<ServerTls>>, TlsError> {
        ServerTls::from_files(Some(&self.certificate()), Some(&self.key()))
    }
}

#[test]
fn a_certificate_with_or_without_its_chain_is_taken_and_both_may_be_in_one_file() {
    for (certificate, key) in [FIRST, SECOND] {
        let tls = TwoFiles::with(certificate, key).load().unwrap().unwrap();
        assert_eq!(tls.config().alpn_protocols, [b"http/1.1"]);
    }
    let both = format!("{}{}", SECOND.1, SECOND.0);
    let files = TwoFiles::with(&both, "");
    assert!(ServerTls::from_files(Some(&files.certificate()), Some(&files.certificate())).is_ok());
    assert!(ServerTls::from_files(None, None).unwrap().is_none());
}

#[test]
fn what_cannot_be_used_is_one_line_that_names_the_file() {
    let broken = FIRST.0.replace("MII", "!!!");
    for (certificate, key, expected) in [
        ("", FIRST.1, "CERT has no certificate (-----BEGIN CERTIFICATE-----) in it"),
        (FIRST.1, FIRST.1, "CERT has no certificate (-----BEGIN CERTIFICATE-----) in it"),
        (&broken, FIRST.1, "CERT is not a PEM file: "),
        (FIRST.0, "", "KEY has no private key (-----BEGIN PRIVATE KEY-----) in it"),
        (FIRST.0, FIRST.0, "KEY has no private key (-----BEGIN PRIVATE KEY-----) in it"),
        (FIRST.0, ENCRYPTED, "the key in KEY is encrypted; the host needs it without a passphrase"),
        (
            FIRST.0,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "the key in KEY is damaged or neither RSA, ECDSA nor Ed25519",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            FIRST.1,
            "the certificate in CERT cannot be used: ",
        ),
        (FIRST.0, SECOND.1, "the key in KEY does not belong to the certificate in CERT"),
    ] {
        let files = TwoFiles::with(certificate, key);
        let error = files.load().unwrap_err().to_string();
        let named = |file: PathBuf| file.display().to_string();
        let text = error.replace(&named(files.certificate()), "CERT").replace(&named(files.key()), "KEY");
        assert!(text.starts_with(expected) && !text.contains('\n'), "{text:?} is not {expected:?}");
    }
    let files = TwoFiles::with(FIRST.0, FIRST.1);
    std::fs::remove_file(files.key()).unwrap();
    let error = files.load().unwrap_err().to_string();
    let expected = format!("cannot read the TLS file {}: ", files.key().display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn one_file_needs_the_other() {
    let file = Path::new("some.pem");
    let message = |certificate, key| ServerTls::from_files(certificate, key).unwrap_err().to_string();
    assert_eq!(message(Some(file), None), "--tls-cert needs --tls-key too");
    assert_eq!(message(None, Some(file)), "--tls-key needs --tls-cert too");
}

#[test]
fn changed_files_are_taken_over_and_broken_ones_leave_what_was() {
    let files = TwoFiles::with(FIRST.0, FIRST.1);
    let tls = files.load().unwrap().unwrap();
    let first = tls.config();

    files.write(FIRST.0, FIRST.1);
    tls.reload();
    assert!(Arc::ptr_eq(&first, &tls.config()), "the same again is nothing new");
    for (certificate, key) in [("", ""), (SECOND.0, FIRST.1), ("nonsense", SECOND.1)] {
        files.write(certificate, key);
        tls.reload();
        assert!(Arc::ptr_eq(&first, &tls.config()), "{certificate:?}");
    }
    std::fs::remove_file(files.certificate()).unwrap();
    tls.reload();
    assert!(Arc::ptr_eq(&first, &tls.config()), "without a file");

    files.write(SECOND.0, SECOND.1);
    tls.reload();
    let second = tls.config();
    assert!(!Arc::ptr_eq(&first, &second));
    files.write(FIRST.0, FIRST.1);
    tls.reload();
    assert!(!Arc::ptr_eq(&second, &tls.config()), "and back again");
}

#[test]
#[cfg(unix)]
fn the_folders_to_watch_are_those_of_the_files_and_of_what_links_lead_to() {
    let files = TwoFiles::with(FIRST.0, FIRST.1);
    let real = tempfile::tempdir().unwrap();
    let target = real.path().join("really.pem");
    std::fs::rename(files.key(), &target).unwrap();
    std::os::unix::fs::symlink(&target, files.key()).unwrap();
    let folders = files.load().unwrap().unwrap().folders();
    for folder in [files.folder.path(), real.path()] {
        assert!(folders.contains(&folder.to_owned()), "{folder:?} is not in {folders:?}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_ordinary_file_is_neither_waited_for_nor_read_without_end() {
    let files = TwoFiles::with(FIRST.0, FIRST.1);
    let tls = files.load().unwrap().unwrap();
    std::fs::remove_file(files.key()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(files.key()).status().unwrap();
    assert!(made.success());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        tls.reload();
        let _ = tell.send((files.load().map(drop).unwrap_err().to_string(), files));
    });
    let (error, files) = told.recv_timeout(std::time::Duration::from_secs(30)).expect("a pipe is waited for");
    assert!(error.ends_with("key.pem: not a file"), "{error}");

    std::fs::remove_file(files.key()).unwrap();
    std::fs::write(files.key(), vec![b'\n'; 2 << 20]).unwrap();
    let error = files.load().map(drop).unwrap_err().to_string();
    assert!(error.ends_with("key.pem: it has more than 1048576 bytes"), "{error}");
}
