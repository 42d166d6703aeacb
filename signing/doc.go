// Package signing turns keys and statements about digests into bytes that others verify, and bytes
// that others wrote into a decision. It knows digests, not images, and neither reads nor writes
// registries.
//
// # Writing
//
// [Generate] makes a key pair, [OpenKey] finds a key. What is said of a digest is a [Statement]:
// [NewSignature] that it is signed, [Release.Statement] that it is a release of a channel,
// [Revocation.Statement] that it is withdrawn, [NewStatement] whatever an attestation says.
// [SignBundle] signs one; [Referrer] is the manifest that attaches it. [SignClassic] makes the
// older encoding, which podman, skopeo and bootc read, and [AddClassic] its manifest. Signatures of
// local keys are deterministic, so that doing it again changes nothing.
//
// # Deciding
//
// [LoadPolicy] reads whose releases a host takes, [ForKeys] makes that of keys that a user names.
// [Verify] takes everything that was found beside a digest, and what the host has acquired so far,
// and decides: yes, no ([ErrNotVerified]), or that it cannot tell ([ErrUndetermined]); with every
// candidate explained. [Releases] lists what was released so far. Who cannot read all that is there says so in [Input], and gets no yes.
//
// # Formats
//
// Sigstore bundle v0.3 (sigstore/protobuf-specs, sigstore_bundle.proto) with a DSSE envelope
// (secure-systems-lab/dsse, protocol.md) around an in-toto statement v1 (in-toto/attestation,
// spec/v1); simple signing as in containers-signature(5); both stored as cosign does
// (sigstore/cosign, specs/BUNDLE_SPEC.md and specs/SIGNATURE_SPEC.md). The predicates of releases
// and revocations are described in docs/format.md.
//
// Input is hostile: it is bounded, never decompressed, and decoded so strictly that no two readers
// can understand it differently.
package signing
