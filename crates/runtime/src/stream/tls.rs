//! Certificates: an installation's own authority, what it signs for servers, and the configurations of both ends.
//!
//! Everything is ECDSA P-256, as PEM where it is stored. Time is given, as it is to every decision.

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// An authority is valid for so long.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(3653 * 86_400);

/// A serving certificate is valid for so long.
pub const SERVING_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// Clocks may differ by this much: what is made now is valid since then.
const SKEW: Duration = Duration::from_secs(3600);

/// A certificate and its key, both as PEM. The key is zeroed when dropped and not printed.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: Zeroizing<String>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(redacted)")
    }
}

impl Pair {
    /// A new authority, valid from `now` (since the UNIX epoch) for [`AUTHORITY_LIFE`].
    pub fn authority(now: Duration) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = authority_params();
        valid(&mut params, now, AUTHORITY_LIFE)?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem().into() })
    }

    /// A serving certificate for these DNS names and addresses, signed by this authority, valid from `now` for
    /// [`SERVING_LIFE`]. Fails if this is no authority of ours or its key is another's.
    pub fn issue(&self, names: &[String], now: Duration) -> anyhow::Result<Self> {
        let signer = KeyPair::from_pem(&self.key).context("the authority's key cannot be read")?;
        let own =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).context("the authority cannot be read")?;
        let public = signer.subject_public_key_info();
        ensure!(own.windows(public.len()).any(|w| w == public), "the authority's key is not that of its certificate");
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("kubepbx-operator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, SERVING_LIFE)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &Issuer::new(authority_params(), signer))?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem().into() })
    }

    /// True once less than a third of the certificate's life is left, or it cannot be read: time to make a new one.
    pub fn renew_needed(&self, now: Duration) -> bool {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok();
        let Some((from, until)) = der.as_ref().and_then(|der| validity(der)) else { return true };
        let left = until.saturating_sub(now.as_secs());
        from > now.as_secs() || left < until.saturating_sub(from) / 3
    }

    /// When it was made, since the UNIX epoch; `None` if it cannot be read.
    pub fn made(&self) -> Option<Duration> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        validity(&der).map(|(from, _)| Duration::from_secs(from) + SKEW)
    }

    fn certified(&self) -> anyhow::Result<CertifiedKey> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .context("the certificate cannot be read")?;
        ensure!(!chain.is_empty(), "no certificate");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).context("the key cannot be read")?;
        Ok(CertifiedKey::from_der(chain, key, &provider())?)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("KubePBX authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut out = DistinguishedName::new();
    out.push(DnType::CommonName, name);
    out
}

fn valid(params: &mut CertificateParams, now: Duration, life: Duration) -> anyhow::Result<()> {
    let at = |t: Duration| anyhow::Ok(OffsetDateTime::from_unix_timestamp(i64::try_from(t.as_secs())?)?);
    params.not_before = at(now.saturating_sub(SKEW))?;
    params.not_after = at(now.saturating_add(life))?;
    Ok(())
}

/// What a server shows, replaceable while it serves: new handshakes see the new one.
#[derive(Debug)]
pub struct Serving {
    current: ArcSwap<CertifiedKey>,
}

impl Serving {
    /// Shows this pair. Fails if it cannot be read or does not belong together.
    pub fn new(pair: &Pair) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { current: ArcSwap::from_pointee(pair.certified()?) }))
    }

    /// Shows this pair from now on; on error the former.
    pub fn replace(&self, pair: &Pair) -> anyhow::Result<()> {
        self.current.store(Arc::new(pair.certified()?));
        Ok(())
    }

    /// A server's configuration that shows what this has.
    pub fn config(self: &Arc<Self>) -> anyhow::Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// A client's configuration that trusts the authorities in this PEM text and nobody else. Several may stand in it: a new
/// one is trusted before the old one is gone.
pub fn client(authorities: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        roots.add(authority.context("an authority cannot be read")?)?;
    }
    ensure!(!roots.is_empty(), "no authority to trust");
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// One provider for all TLS here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// From when to when a certificate is valid, in seconds since the UNIX epoch (RFC 5280 4.1.2.5).
fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // Version (tagged [0]), serial number, algorithm, issuer; then the validity.
    let (tag, _, rest) = element(fields)?;
    if tag == 0xa0 {
        fields = rest;
    }
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (tag, from, rest) = element(validity)?;
    let from = instant(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some((from, instant(tag, until)?))
}

/// The first DER element: its tag, its contents, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(d, _)| d.len() <= 4)?;
        length = digits.iter().fold(0, |n, d| n << 8 | usize::from(*d));
        rest = after;
    }
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// UTCTime (`YYMMDDHHMMSSZ`) or GeneralizedTime (`YYYYMMDDHHMMSSZ`).
fn instant(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z').filter(|t| t.is_ascii())?;
    let (year, rest) = match tag {
        0x17 => {
            let year: i32 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        0x18 => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = time::Date::from_calendar_date(year, two(0)?.try_into().ok()?, two(2)?).ok()?;
    let at = date.with_hms(two(4)?, two(6)?, two(8)?).ok()?.assume_utc();
    u64::try_from(at.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn verify(authorities: &str, leaf: &Pair, name: &str, at: Duration) -> bool {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::since_unix_epoch(at)).is_ok()
    }

    #[test]
    fn an_authority_signs_for_names_and_addresses_and_only_its_own() {
        let (one, other) = (Pair::authority(NOW).unwrap(), Pair::authority(NOW).unwrap());
        let names = ["kubepbx-operator.pbx.svc".to_owned(), "10.2.0.7".to_owned(), "fd00::7".to_owned()];
        let leaf = one.issue(&names, NOW).unwrap();
        for name in &names {
            assert!(verify(&one.certificate, &leaf, name, NOW), "{name}");
            assert!(!verify(&other.certificate, &leaf, name, NOW));
        }
        assert!(!verify(&one.certificate, &leaf, "10.2.0.8", NOW));
        // Both stand in one file while an authority is replaced.
        let both = format!("{}{}", other.certificate, one.certificate);
        assert!(verify(&both, &leaf, "10.2.0.7", NOW));
        assert!(client(both.as_bytes()).is_ok() && client(b"nothing").is_err());
        let mixed = Pair { certificate: one.certificate.clone(), key: other.key.clone() };
        assert!(mixed.issue(&names, NOW).is_err());
        assert!(Serving::new(&Pair { certificate: leaf.certificate.clone(), key: one.key.clone() }).is_err());
        assert!(!format!("{leaf:?} {one:?}").contains("PRIVATE"));
    }

    #[test]
    fn lives_are_what_they_are_said_to_be_and_renewal_comes_in_time() {
        let authority = Pair::authority(NOW).unwrap();
        let leaf = authority.issue(&["x".into()], NOW).unwrap();
        for (pair, life) in [(&authority, AUTHORITY_LIFE), (&leaf, SERVING_LIFE)] {
            let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
            assert_eq!(validity(&der), Some(((NOW - SKEW).as_secs(), (NOW + life).as_secs())));
            assert_eq!(pair.made(), Some(NOW));
            for cut in 0..der.len().min(200) {
                let _ = validity(&der[..cut]);
            }
            assert!(!pair.renew_needed(NOW) && !pair.renew_needed(NOW + life / 2));
            assert!(pair.renew_needed(NOW + life * 3 / 4) && pair.renew_needed(NOW + life * 2));
            assert!(pair.renew_needed(NOW - DAY), "the clock was wrong when it was made");
        }
        assert!(verify(&authority.certificate, &leaf, "x", NOW + SERVING_LIFE - DAY));
        assert!(!verify(&authority.certificate, &leaf, "x", NOW + SERVING_LIFE + DAY));
        assert!(Pair { certificate: "?".into(), key: String::new().into() }.renew_needed(NOW));
    }

    #[test]
    fn both_forms_of_time() {
        assert_eq!(instant(0x17, b"700101000000Z"), Some(0));
        assert_eq!(instant(0x17, b"270115080000Z"), Some(1_800_000_000));
        assert_eq!(instant(0x18, b"20500101000000Z"), Some(2_524_608_000));
        for (tag, bad) in [(0x17, "2701150800Z"), (0x17, "270115080000"), (0x18, "270115080000Z"), (0x30, "")] {
            assert_eq!(instant(tag, bad.as_bytes()), None, "{bad}");
        }
    }
}
