package disk

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"unicode/utf16"
)

// Object identifiers of Authenticode ("Windows Authenticode Portable Executable Signature Format")
// and PKCS #7 (RFC 2315).
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidIndirect      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidImageData     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
)

// checkSigner tells whether firmware can take what is signed with a key as signed by a certificate's.
func checkSigner(key crypto.Signer, cert *x509.Certificate) error {
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		return errors.New("firmware takes RSA keys only")
	}
	if named, ok := cert.PublicKey.(*rsa.PublicKey); !ok || !named.Equal(public) {
		return errors.New("the certificate is not of this key")
	}
	return nil
}

// signPE appends an Authenticode signature to an image that has none. There is no time in it, so that
// the same image, key and certificate give the same bytes.
func signPE(image []byte, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	p, _, err := parsePE(image)
	if err != nil {
		return nil, err
	}
	if err := checkSigner(key, cert); err != nil {
		return nil, err
	}
	out := append([]byte{}, image...)
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	h := sha256.New()
	checksum, security := p.optional+peChecksumAt, p.optional+peSecurityDir
	h.Write(out[:checksum])
	h.Write(out[checksum+4 : security])
	h.Write(out[security+8:])
	signed, err := pkcs7(h.Sum(nil), key, cert)
	if err != nil {
		return nil, err
	}
	for len(signed)%8 != 0 {
		signed = append(signed, 0)
	}
	le := binary.LittleEndian
	le.PutUint32(out[security:], uint32(len(out)))
	le.PutUint32(out[security+4:], uint32(8+len(signed)))
	out = le.AppendUint32(out, uint32(8+len(signed)))
	out = le.AppendUint16(out, 0x0200) // revision
	out = le.AppendUint16(out, 0x0002) // PKCS #7
	out = append(out, signed...)
	putChecksum(out, checksum)
	return out, nil
}

// pkcs7 returns the signature of an image's digest.
func pkcs7(digest []byte, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	var d der
	algorithm := d.seq(d.oid(oidSHA256), d.null())
	obsolete := []byte{}
	for _, u := range utf16.Encode([]rune("<<<Obsolete>>>")) { // what everybody writes as the file's name
		obsolete = binary.BigEndian.AppendUint16(obsolete, u)
	}
	imageData := d.seq(d.raw(asn1.ClassUniversal, asn1.TagBitString, false, []byte{0}),
		d.context(0, true, d.context(2, true, d.context(0, false, obsolete))))
	content := append(d.seq(d.oid(oidImageData), imageData),
		d.seq(algorithm, d.raw(asn1.ClassUniversal, asn1.TagOctetString, false, digest))...)
	sum := sha256.Sum256(content) // without tag and length
	attributes := append(
		d.seq(d.oid(oidContentType), d.set(d.oid(oidIndirect))),
		d.seq(d.oid(oidMessageDigest), d.set(d.raw(asn1.ClassUniversal, asn1.TagOctetString, false, sum[:])))...)
	signedSum := sha256.Sum256(d.set(attributes))
	if d.err != nil {
		return nil, d.err
	}
	signature, err := key.Sign(rand.Reader, signedSum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	version := d.raw(asn1.ClassUniversal, asn1.TagInteger, false, []byte{1})
	serial := d.marshal(cert.SerialNumber)
	signer := d.seq(version, d.seq(cert.RawIssuer, serial), algorithm,
		d.context(0, true, attributes),
		d.seq(d.oid(oidRSA), d.null()),
		d.raw(asn1.ClassUniversal, asn1.TagOctetString, false, signature))
	out := d.seq(d.oid(oidSignedData), d.context(0, true, d.seq(version, d.set(algorithm),
		d.seq(d.oid(oidIndirect), d.context(0, true, d.seq(content))),
		d.context(0, true, cert.Raw),
		d.set(signer))))
	return out, d.err
}

// A der encodes, and keeps the first error.
type der struct{ err error }

func (d *der) marshal(v any) []byte {
	b, err := asn1.Marshal(v)
	if d.err == nil {
		d.err = err
	}
	return b
}

func (d *der) raw(class, tag int, compound bool, content []byte) []byte {
	return d.marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: compound, Bytes: content})
}

func (d *der) oid(id asn1.ObjectIdentifier) []byte { return d.marshal(id) }
func (d *der) null() []byte                        { return []byte{5, 0} }

func (d *der) context(tag int, compound bool, content []byte) []byte {
	return d.raw(asn1.ClassContextSpecific, tag, compound, content)
}

func (d *der) seq(parts ...[]byte) []byte {
	return d.raw(asn1.ClassUniversal, asn1.TagSequence, true, join(parts))
}

// set is for sets of one member, or of members in order.
func (d *der) set(parts ...[]byte) []byte {
	return d.raw(asn1.ClassUniversal, asn1.TagSet, true, join(parts))
}

func join(parts [][]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
