package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// A Subject is the image that a bill of materials is of.
type Subject struct {
	Name, Version string
	OS, Arch      string
	Created       time.Time // the build date
	Digest        string    // of the content manifest
	Tool          string    // version of the program that writes the document
}

// id identifies what is said of the subject: a digest of all of it.
func (s *Subject) id(packages []Package) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %d %q %q\n", s.Name, s.Version, s.OS, s.Arch, s.Created.Unix(), s.Digest, s.Tool)
	for _, p := range packages {
		fmt.Fprintf(h, "%q %q %q %q %q %q %q\n", p.Type, p.Name, p.Version, p.Arch, p.Licence, p.PURL, p.From)
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum
}

// uuid makes a UUID of a digest: version 8 of RFC 9562, section 5.8.
func uuid(sum [sha256.Size]byte) string {
	b := sum[:16]
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	x := hex.EncodeToString(b)
	return strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-")
}

// reference identifies a package within a document: a readable part and 64 bits of a digest, as
// identifiers of SPDX hold letters, digits, "." and "-" only.
func (p *Package) reference() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{p.Type, p.Name, p.Version, p.Arch}, "\x00")))
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, p.Name)
	return fmt.Sprintf("Package-%s-%s-%x", p.Type, name, sum[:8])
}

// namespace begins the names of documents; there is nothing to be fetched at it.
const namespace = "https://github.com/goldenisc/packer-plugin-isc/spdx/"

// noAssertion stands for what SPDX asks for and the tree does not say.
const noAssertion = "NOASSERTION"

// imageRef is the identifier of the image in both documents.
const imageRef = "Image"

// SPDX returns an SPDX 2.3 document in JSON. It has a package for the image, which the document
// describes and which contains all others.
func (s *Subject) SPDX(packages []Package) ([]byte, error) {
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      s.Name + "-" + s.Version,
		DocumentNamespace: namespace + s.Name + "-" + s.Version + "-" + uuid(s.id(packages)),
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: strings.TrimSuffix("iscadm-"+s.Tool, "-")}},
			Created:  s.Created.UTC().Format(time.RFC3339),
		},
	}
	add := func(id common.ElementID, p *spdx.Package, from common.ElementID, relation string) {
		p.PackageSPDXIdentifier, p.PackageDownloadLocation = id, noAssertion
		p.PackageLicenseConcluded, p.PackageCopyrightText = noAssertion, noAssertion
		if p.PackageLicenseDeclared == "" {
			p.PackageLicenseDeclared = noAssertion
		}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, &spdx.Relationship{
			RefA: common.DocElementID{ElementRefID: from}, RefB: common.DocElementID{ElementRefID: id}, Relationship: relation,
		})
	}
	add(imageRef, &spdx.Package{
		PackageName: s.Name, PackageVersion: s.Version, PrimaryPackagePurpose: "CONTAINER",
		PackageSummary:    s.OS + "/" + s.Arch,
		PackageSourceInfo: "content manifest " + s.Digest,
	}, "DOCUMENT", common.TypeRelationshipDescribe)
	for i := range packages {
		p := &packages[i]
		e := &spdx.Package{
			PackageName: p.Name, PackageVersion: p.Version, PackageSourceInfo: "listed in /" + p.From,
			PackageExternalReferences: []*spdx.PackageExternalReference{{
				Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: p.PURL,
			}},
		}
		if isExpression(p.Licence) {
			e.PackageLicenseDeclared = p.Licence
		} else if p.Licence != "" {
			e.PackageLicenseComments = "The package says: " + p.Licence
		}
		add(common.ElementID(p.reference()), e, imageRef, common.TypeRelationshipContains)
	}
	var b bytes.Buffer
	if err := spdxjson.Write(doc, &b, spdxjson.EscapeHTML(false)); err != nil {
		return nil, fmt.Errorf("write SPDX: %w", err)
	}
	return b.Bytes(), nil
}

// CycloneDX returns a CycloneDX 1.6 document in JSON.
func (s *Subject) CycloneDX(packages []Package) ([]byte, error) {
	components := make([]cyclonedx.Component, 0, len(packages))
	for i := range packages {
		p := &packages[i]
		c := cyclonedx.Component{
			BOMRef: p.reference(), Type: cyclonedx.ComponentTypeLibrary, Name: p.Name, Version: p.Version, PackageURL: p.PURL,
			Evidence: &cyclonedx.Evidence{Occurrences: &[]cyclonedx.EvidenceOccurrence{{Location: "/" + p.From}}},
		}
		if isExpression(p.Licence) {
			c.Licenses = &cyclonedx.Licenses{{Expression: p.Licence}}
		} else if p.Licence != "" {
			c.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{Name: p.Licence}}}
		}
		components = append(components, c)
	}
	bom := &cyclonedx.BOM{
		JSONSchema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
		BOMFormat:  "CycloneDX", SpecVersion: cyclonedx.SpecVersion1_6,
		SerialNumber: "urn:uuid:" + uuid(s.id(packages)), Version: 1,
		Metadata: &cyclonedx.Metadata{
			Timestamp: s.Created.UTC().Format(time.RFC3339),
			Tools: &cyclonedx.ToolsChoice{Components: &[]cyclonedx.Component{
				{Type: cyclonedx.ComponentTypeApplication, Name: "iscadm", Version: s.Tool},
			}},
			Component: &cyclonedx.Component{
				BOMRef: imageRef, Type: cyclonedx.ComponentTypeContainer, Name: s.Name, Version: s.Version,
				Properties: &[]cyclonedx.Property{
					{Name: "goldenisc:content", Value: s.Digest},
					{Name: "goldenisc:platform", Value: s.OS + "/" + s.Arch},
				},
			},
		},
		Components: &components,
	}
	var b bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON).SetEscapeHTML(false).Encode(bom); err != nil {
		return nil, fmt.Errorf("write CycloneDX: %w", err)
	}
	return b.Bytes(), nil
}

// isExpression reports whether s has the form of an SPDX licence expression (SPDX 2.3, annex D):
// identifiers between operators, parentheses in pairs. Whether the identifiers stand in SPDX's
// list is not looked at.
func isExpression(s string) bool {
	s = strings.NewReplacer("(", " ( ", ")", " ) ").Replace(s)
	depth, operand := 0, true // whether an operand is wanted next
	for word := range strings.FieldsSeq(s) {
		switch {
		case word == "(":
			if !operand {
				return false
			}
			depth++
		case word == ")":
			if depth--; operand || depth < 0 {
				return false
			}
		case word == "AND" || word == "OR" || word == "WITH":
			if operand {
				return false
			}
			operand = true
		default:
			id := strings.Trim(strings.TrimSuffix(word, "+"), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
			if !operand || id != "" || word == "+" || word == "custom" || word == "none" {
				return false
			}
			operand = false
		}
	}
	return depth == 0 && !operand
}

// ParseSPDX lists the packages of a document that [Subject.SPDX] has written; Licence and From stay
// empty. Documents of others are read as far as their packages have package URLs. (The library's
// reader is not made for hostile input: it panics on a package that is null.)
func ParseSPDX(data []byte) ([]Package, error) {
	var doc struct {
		Version  string `json:"spdxVersion"`
		Packages []struct {
			Name    string `json:"name"`
			Version string `json:"versionInfo"`
			Refs    []struct {
				Type    string `json:"referenceType"`
				Locator string `json:"referenceLocator"`
			} `json:"externalRefs"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read SPDX: %w", err)
	}
	if doc.Version != spdx.Version {
		return nil, fmt.Errorf("read SPDX: version %q: this program knows %q", doc.Version, spdx.Version)
	}
	var out []Package
	for _, e := range doc.Packages {
		for _, ref := range e.Refs {
			if ref.Type != common.TypePackageManagerPURL {
				continue
			}
			if problem := cmp.Or(checkText("name", e.Name), checkText("version", e.Version), checkURL(ref.Locator)); problem != "" {
				return nil, fmt.Errorf("read SPDX: %s", problem)
			}
			p := Package{Type: typeOf(ref.Locator), Name: e.Name, Version: e.Version, PURL: ref.Locator}
			if _, query, ok := strings.Cut(ref.Locator, "?"); ok {
				for pair := range strings.SplitSeq(query, "&") {
					if arch, ok := strings.CutPrefix(pair, "arch="); ok {
						p.Arch = arch
					}
				}
			}
			out = append(out, p)
			break
		}
	}
	return out, nil
}

// checkURL returns what is wrong with a package URL, or "". Text grows when it is escaped.
func checkURL(s string) string {
	if len(s) > 16*maxText || strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return fmt.Sprintf("package URL %.100q is too long or not ASCII", s)
	}
	return ""
}

// typeOf returns the type of a package by its URL.
func typeOf(purl string) string {
	typ, _, _ := strings.Cut(strings.TrimPrefix(purl, "pkg:"), "/")
	switch typ {
	case "golang":
		return Go
	case "generic":
		return IPS
	}
	return typ
}
