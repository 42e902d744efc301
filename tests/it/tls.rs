//! TLS on the REST listener.

use rcgen::{CertificateParams, KeyPair};

use crate::support::{Certificates, Gateway, binary};

#[tokio::test(flavor = "multi_thread")]
async fn rest_is_served_over_tls_where_a_certificate_is_configured() {
    let certificates = Certificates::of("127.0.0.1");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("cert.pem"), &certificates.certificate).unwrap();
    std::fs::write(path("key.pem"), &certificates.key).unwrap();
    let (cert_file, key_file) = (path("cert.pem"), path("key.pem"));
    let settings = [
        ("server.tls_cert_file", cert_file.as_str()),
        ("server.tls_key_file", key_file.as_str()),
    ];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &settings).await;
    assert!(
        gateway.base_url.starts_with("https://"),
        "{}",
        gateway.base_url
    );

    let trusted = reqwest::Certificate::from_pem(certificates.authority.as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([trusted])
        .build()
        .unwrap();
    let answer = client
        .get(format!("{}/livez", gateway.base_url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    // What clients offer in the handshake, and an upgrade behind it.
    for offer in [
        &["--http1.0"][..],
        &["--http1.1"],
        &["--http2"],
        &["--no-alpn"],
        &["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"],
    ] {
        let asked = std::process::Command::new("curl")
            .args(["-s", "-f", "-k", "--noproxy", "*"])
            .args(offer)
            .arg(format!("{}/livez", gateway.base_url))
            .output()
            .unwrap();
        assert!(asked.status.success(), "{offer:?}: {asked:?}");
    }
    let plain = gateway.base_url.replace("https://", "http://");
    assert!(
        reqwest::get(format!("{plain}/livez")).await.is_err(),
        "and in the clear nothing is answered"
    );
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_a_fault_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(vec!["gateway".to_owned()])
        .unwrap()
        .self_signed(&one)
        .unwrap();
    std::fs::write(directory.path().join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.path().join("key.pem"), other.serialize_pem()).unwrap();
    let mut serve = binary();
    serve
        .args(["serve", "--sandbox"])
        .current_dir(directory.path())
        .envs([
            ("ISG__SERVER__TLS_CERT_FILE", "cert.pem"),
            ("ISG__SERVER__TLS_KEY_FILE", "key.pem"),
            ("ISG__AUTH__LEEWAY", "soon"),
        ]);
    let ended = serve.output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(
        told.contains("server.tls_key_file") && told.contains("does not fit"),
        "{told}"
    );
    assert!(
        told.contains("auth.leeway"),
        "with all other faults: {told}"
    );
}
