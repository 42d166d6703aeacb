package builder

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/disk"
	"github.com/goldenisc/packer-plugin-isc/internal/tempfile"
	"github.com/goldenisc/packer-plugin-isc/ovf"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// An OVA is a virtual appliance: the disk, and the machine around it.
type OVA struct {
	ID         string   `hcl:"id,optional"`          // default ova
	Targets    []string `hcl:"targets,optional"`     // virtualbox, vmware, proxmox; one file for all that are named, default for all there are
	Memory     string   `hcl:"memory,optional"`      // default that of limits, else 1GiB
	CPUs       int      `hcl:"cpus,optional"`        // default those of limits, else 1
	Firmware   string   `hcl:"firmware,optional"`    // efi (default) or bios
	SecureBoot bool     `hcl:"secure_boot,optional"` // told to VMware, the only one that can be told; of a Linux root it needs uki_key
	Controller string   `hcl:"controller,optional"`  // of the disk: ahci (default), ide, lsilogic, pvscsi, nvme
	System     string   `hcl:"system,optional"`      // debian, ubuntu, linux, illumos or solaris; default by the root or image.os
	Level      string   `hcl:"level,optional"`       // of compression: fast, default or small
	Manifest   string   `hcl:"manifest,optional"`    // sha256 (default), sha1, sha512 or none
	OVF        string   `hcl:"ovf,optional"`         // 1.1 (default) or 2.0, which VirtualBox alone reads

	EULA   string `hcl:"eula,optional"`   // its text
	Vendor string `hcl:"vendor,optional"` // of the product
	URL    string `hcl:"url,optional"`    // of the product

	Certificate string `hcl:"certificate,optional"` // PEM file with the X.509 certificate that the manifest is signed with, and those that vouch for it
	Key         string `hcl:"key,optional"`         // its RSA key: PEM file or env://VARIABLE

	NICs       []NIC      `hcl:"nic,block"` // default one
	Properties []Property `hcl:"property,block"`
	Guest      `hcl:",remain"`

	faulty bool // its values are reported already
}

// A NIC is a network interface of the machine. Its address is given where it is imported.
type NIC struct {
	Network string `hcl:"network,optional"` // default VM Network, which the importer maps
	Card    string `hcl:"card,optional"`    // e1000 (default), e1000e, vmxnet3, virtio
}

// A Property is a value that the one who imports may set. VMware hands it to the guest.
type Property struct {
	Key          string `hcl:"key"`
	Type         string `hcl:"type,optional"` // default string
	Value        string `hcl:"value,optional"`
	Category     string `hcl:"category,optional"`
	Label        string `hcl:"label,optional"`
	Description  string `hcl:"description,optional"`
	Configurable *bool  `hcl:"configurable,optional"` // default true
	Password     bool   `hcl:"password,optional"`
}

// guests are the values of OVA.System.
var guests = map[string]ovf.OS{"debian": ovf.Debian, "ubuntu": ovf.Ubuntu, "linux": ovf.Linux, "illumos": ovf.Illumos, "solaris": ovf.Solaris}

func newOVA(body hcl.Body, ctx *hcl.EvalContext) (Writer, hcl.Diagnostics) {
	o := &OVA{Level: "default", Manifest: string(ovf.SHA256), Firmware: string(ovf.EFI), Controller: string(ovf.AHCI), OVF: "1.1"}
	diags := gohcl.DecodeBody(body, ctx, o)
	diags = append(diags, oneOf(body, "level", o.Level, "fast", "default", "small")...)
	diags = append(diags, oneOf(body, "manifest", o.Manifest, "sha256", "sha1", "sha512", "none")...)
	diags = append(diags, oneOf(body, "firmware", o.Firmware, "efi", "bios")...)
	diags = append(diags, oneOf(body, "controller", o.Controller, "ahci", "ide", "lsilogic", "pvscsi", "nvme")...)
	diags = append(diags, oneOf(body, "ovf", o.OVF, "1.1", "2.0")...)
	if o.System != "" {
		diags = append(diags, oneOf(body, "system", o.System, sortedKeys(guests)...)...)
	}
	for _, t := range o.Targets {
		diags = append(diags, oneOf(body, "targets", t, string(ovf.VirtualBox), string(ovf.VMware), string(ovf.Proxmox), string(ovf.Universal))...)
	}
	diags = append(diags, o.Guest.check(body)...)
	o.bios, o.declared = o.Firmware == string(ovf.BIOS), true
	o.faulty = diags.HasErrors()
	return o, diags
}

// target returns the importer, or that several are to take it, which may be all.
func (o *OVA) target() (ovf.Target, []ovf.Target) {
	var named []ovf.Target
	for _, t := range slices.Compact(slices.Sorted(slices.Values(o.Targets))) {
		named = append(named, ovf.Target(t))
	}
	if len(named) == 1 {
		return named[0], nil
	}
	if slices.Contains(named, ovf.Universal) {
		named = nil
	}
	return ovf.Universal, named
}

// problems returns what is wrong with the machine, without a disk in it.
func (o *OVA) problems(s *Spec) (out []Problem) {
	if s.Image == nil || o.faulty {
		return nil
	}
	on := func(path string, err error) {
		if err != nil {
			out = append(out, Problem{path, err})
		}
	}
	if o.Memory != "" {
		_, err := profiles.ParseSize(o.Memory)
		on("memory", err)
	}
	if s.Disk == nil && s.Image.OS == "linux" && o.Firmware == "bios" {
		on("firmware", errors.New("bios does not start a disk that is made of a Linux root: it has a unified kernel image"))
	}
	if o.SecureBoot && s.Disk == nil && s.Image.OS == "linux" && o.SignKey == "" {
		on("secure_boot", errors.New("needs uki_key and uki_cert: the firmware would refuse an unsigned kernel image"))
	}
	if (o.Key == "") != (o.Certificate == "") {
		on("key", errors.New("goes with a certificate, and a certificate with a key"))
	}
	if o.Certificate != "" {
		on("certificate", regularFile(local(s.Dir, o.Certificate)))
	}
	if o.Key != "" && !strings.HasPrefix(o.Key, "env://") {
		on("key", regularFile(local(s.Dir, o.Key)))
	}
	out = append(out, o.Guest.problems(s)...)
	if len(out) > 0 {
		return out
	}
	a, err := o.appliance(s, ovf.OS{})
	if err == nil {
		a.Disks = []ovf.Disk{{VMDK: ovf.VMDK{Size: 1, Capacity: 1}, Content: strings.NewReader(""), Controller: ovf.Controller(o.Controller)}}
		err = a.Validate()
	}
	on("", err)
	return out
}

// appliance describes the machine, but for its disk.
func (o *OVA) appliance(s *Spec, system ovf.OS) (*ovf.Appliance, error) {
	limits := s.Layout.Limits
	if limits == nil {
		limits = &profiles.Limits{}
	}
	memory, err := profiles.ParseSize(cmp.Or(o.Memory, limits.Memory, "1GiB"))
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	const mib = 1 << 20
	target, among := o.target()
	a := &ovf.Appliance{
		Name: s.Image.Name + "-" + s.Image.Version, Target: target, Among: among, OVF2: o.OVF == "2.0", OS: system,
		CPUs: cmp.Or(o.CPUs, int(math.Ceil(limits.CPUs)), 1), Memory: (memory + mib - 1) / mib * mib,
		Firmware: ovf.Firmware(o.Firmware), SecureBoot: o.SecureBoot, Description: s.Image.Description, EULA: o.EULA,
		Product: &ovf.Product{Name: s.Image.Name, Vendor: o.Vendor, Version: s.Image.Version, ProductURL: o.URL},
	}
	for _, n := range o.NICs {
		a.NICs = append(a.NICs, ovf.NIC{Network: n.Network, Card: ovf.Card(n.Card)})
	}
	if len(a.NICs) == 0 {
		a.NICs = []ovf.NIC{{}}
	}
	for _, p := range o.Properties {
		a.Product.Properties = append(a.Product.Properties, ovf.Property{
			Key: p.Key, Type: cmp.Or(p.Type, "string"), Value: p.Value, Category: p.Category, Label: p.Label, Description: p.Description,
			UserConfigurable: p.Configurable == nil || *p.Configurable, Password: p.Password,
		})
	}
	return a, nil
}

// hardware returns what the guest needs drivers of.
func (o *OVA) hardware() []disk.Hardware {
	out := []disk.Hardware{disk.Hardware(o.Controller)}
	cards := map[string]disk.Hardware{"": disk.E1000, "e1000": disk.E1000, "e1000e": disk.E1000E, "vmxnet3": disk.VMXNet3, "virtio": disk.VirtioNet}
	for _, n := range o.NICs {
		out = append(out, cards[n.Card])
	}
	if len(o.NICs) == 0 {
		out = append(out, disk.E1000)
	}
	return out
}

// system returns the guest's name in the dialects of the importers. They have names for arm64 that
// differ from version to version: it goes by its number alone.
func (o *OVA) system(src *Source) (ovf.OS, error) {
	img := src.Spec.Image
	name := o.System
	if name == "" {
		f, err := Inspect(src.Tree)
		if err != nil {
			return ovf.OS{}, err
		}
		switch name = img.OS; {
		case strings.HasPrefix(f.Release, "Debian"):
			name = "debian"
		case strings.HasPrefix(f.Release, "Ubuntu"):
			name = "ubuntu"
		}
	}
	system := guests[name]
	if img.Arch != "amd64" {
		system = ovf.OS{ID: system.ID, Description: img.OS + " (" + img.Arch + ")"}
	}
	return system, nil
}

// Write writes the appliance. Its disk is spooled, compressed: descriptor and manifest precede it.
func (o *OVA) Write(ctx context.Context, id string, src *Source, to *registry.Stage) ([]image.Artifact, error) {
	system, err := o.system(src)
	if err != nil {
		return nil, err
	}
	a, err := o.appliance(src.Spec, system)
	if err != nil {
		return nil, err
	}
	opt := ovf.Options{Manifest: ovf.Digest(o.Manifest), ModTime: src.Created}
	if o.Key != "" {
		if opt.Key, opt.Certificates, err = readSigner(src.Spec.Dir, o.Key, o.Certificate); err != nil {
			return nil, Input(err)
		}
		if err := opt.Check(); err != nil {
			return nil, Input(err)
		}
	}
	return src.writeDisk(ctx, id, to, &o.Guest, o.hardware(), func(v *virtualDisk) (_ []image.Artifact, err error) {
		art := v.artifact(id, "ova", image.TypeOVA)
		art.Attributes["targets"] = string(a.Target)
		art.Attributes["firmware"] = o.Firmware
		art.Attributes["cpus"] = strconv.Itoa(a.CPUs)
		art.Attributes["memory"] = strconv.FormatInt(a.Memory, 10)
		disks := []*virtualDisk{v}
		if v.second != nil {
			disks = append(disks, v.second)
			art.Attributes["secondCapacity"] = strconv.FormatInt(v.second.Size, 10)
		}
		for i, d := range disks {
			if err := fits(ctx, d.Source, levels[o.Level]); err != nil {
				return nil, err
			}
			s, e := tempfile.New(src.Dir)
			if e != nil {
				return nil, e
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			vmdk, err := ovf.WriteVMDK(ctx, &limitedWriter{s, ovf.MaxMember}, d.Source, d.options(src, o.Level))
			if err != nil {
				return nil, err
			}
			a.Disks = append(a.Disks, ovf.Disk{VMDK: *vmdk, Content: s, Controller: ovf.Controller(o.Controller), Immutable: i == 0 && v.second != nil})
		}
		p, err := a.Package(ctx, opt)
		if err != nil {
			return nil, Input(err)
		}
		art, err = put(ctx, to, art, image.None, func(w io.Writer) error { return p.WriteOVA(ctx, w) })
		return []image.Artifact{art}, err
	})
}

// fits refuses a disk that will hardly become a member of an archive, by a sample of it: compressing
// so much takes minutes.
func fits(ctx context.Context, d ovf.Source, level ovf.Level) error {
	size, err := ovf.EstimateVMDK(ctx, d, level)
	if err == nil && size > ovf.MaxMember/10*11 {
		err = tooLarge(fmt.Sprintf("would have about %d bytes, more than the", size))
	}
	return err
}

func tooLarge(how string) error {
	return Input(fmt.Errorf("the compressed disk %s %d bytes that fit in an OVA: use vmdk, qcow2 or raw_disk", how, int64(ovf.MaxMember)))
}

// A limitedWriter fails as soon as a disk cannot become a member of an archive any more.
type limitedWriter struct {
	w    io.Writer
	left int64
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, tooLarge("exceeds the")
	}
	return l.w.Write(p)
}

// readSigner reads a private key, from a PEM file or env://VARIABLE, and the certificates of a PEM file.
func readSigner(dir, keyName, certificate string) (crypto.Signer, []*x509.Certificate, error) {
	var text []byte
	var err error
	if name, ok := strings.CutPrefix(keyName, "env://"); ok {
		text = []byte(os.Getenv(name))
	} else if text, err = readBounded(local(dir, keyName)); err != nil {
		return nil, nil, fmt.Errorf("key: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, nil, fmt.Errorf("key %q: %w", keyName, err)
	}
	text, err = readBounded(local(dir, certificate))
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %q: %w", certificate, err)
		}
		chain = append(chain, c)
	}
	return key, chain, nil
}

// parseKey reads a private key that is not encrypted, PKCS #8 or PKCS #1.
func parseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("holds no PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		err = fmt.Errorf("%q is no private key that can be read", block.Type)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T does not sign", key)
	}
	return signer, nil
}
