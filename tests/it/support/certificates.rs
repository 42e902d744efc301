use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SignatureAlgorithm, date_time_ymd,
};

/// An authority of the tests.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// PEM of a certificate and its key.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        Self { pem, issuer }
    }

    /// A certificate for one name.
    pub(crate) fn certify(&self, name: &str) -> Leaf {
        self.certify_key(name, &PKCS_ECDSA_P256_SHA256, None)
    }

    /// The same with a key of this kind, perhaps one that ends in so many days.
    pub(crate) fn certify_key(
        &self,
        name: &str,
        kind: &'static SignatureAlgorithm,
        days: Option<i64>,
    ) -> Leaf {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        // By the same name as its authority it would pass for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(days) = days {
            let day = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
            let day = day.strftime("%Y-%m-%d").to_string();
            let mut parts = day.split('-').map(|part| part.parse::<i32>().unwrap());
            let mut part = || parts.next().unwrap();
            let small = |number: i32| u8::try_from(number).unwrap();
            params.not_after = date_time_ymd(part(), small(part()), small(part()));
        }
        Leaf {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// PEM of an authority of the tests, and of a certificate and its key that it signed for one name.
pub(crate) struct Certificates {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certificates {
    pub(crate) fn of(name: &str) -> Self {
        let authority = Authority::new();
        let Leaf { certificate, key } = authority.certify(name);
        Self {
            authority: authority.pem,
            certificate,
            key,
        }
    }
}
