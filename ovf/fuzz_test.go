package ovf

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

func FuzzDescriptor(f *testing.F) {
	files, err := filepath.Glob("testdata/corpus/*.ovf")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	archive, err := txtar.ParseFile("testdata/ovftool.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(archive.Files); i += 7 {
		f.Add(archive.Files[i].Data)
	}
	f.Add([]byte("\xff\xfe<\x00?\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			if e != nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, %v", e, err)
			}
			return
		}
		for _, finding := range e.Lint() {
			if finding.Message == "" || finding.Importer == "" {
				t.Errorf("finding %+v", finding)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("SHA256(a.ovf)= 00ff\nSHA1(b (c).vmdk)= 01\r\n\n SHA512 (x)=02"))
	f.Add([]byte("SHA256(a)"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sums, err := ParseManifest(data)
		if err != nil {
			return
		}
		var out strings.Builder
		for _, s := range sums {
			out.WriteString(s.String() + "\n")
		}
		again, err := ParseManifest([]byte(out.String()))
		if err != nil {
			t.Fatalf("%q: %v", out.String(), err)
		}
		if len(again) != len(sums) {
			t.Errorf("%d lines, then %d", len(sums), len(again))
		}
		for i := range again {
			if !reflect.DeepEqual(sums[i], again[i]) {
				t.Errorf("%+v became %+v", sums[i], again[i])
			}
		}
	})
}

func FuzzCertificate(f *testing.F) {
	key, cert := testKey(f)
	good, err := sign([]byte("manifest"), "a.mf", key, []*x509.Certificate{cert, cert})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCertificate(data)
		if err != nil {
			return
		}
		if c.Verify([]byte("another manifest")) == nil {
			t.Error("any manifest is signed")
		}
	})
}

func FuzzOVA(f *testing.F) {
	a := testAppliance(f, Universal)
	small := smallVMDK()
	a.Disks = []Disk{{VMDK: VMDK{Size: int64(len(small)), Capacity: 3 * GrainSize, SHA256: sha256.Sum256(small)}, Content: bytes.NewReader(small)}}
	f.Add(writeOVA(f, a, Options{}))
	key, cert := testKey(f)
	f.Add(writeOVA(f, a, Options{Key: key, Certificates: []*x509.Certificate{cert}, Manifest: SHA512}))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &contents{archive: true, members: map[string]Member{}}
		if err := p.index(bytes.NewReader(data), int64(len(data))); err != nil {
			return
		}
		c := &checker{p: p, report: &Report{}}
		if err := c.run(t.Context()); err != nil {
			return
		}
		if len(c.findings) > maxFindings {
			t.Errorf("%d findings", len(c.findings))
		}
	})
}
