package signing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestStatement(t *testing.T) {
	digest := digestOf("web")
	for _, c := range []struct {
		name, digest, predicateType, predicate, want string
	}{
		{"good", digest, PredicateSPDX, `{"a": 1}`, ""},
		{"no digest", "", PredicateSPDX, `{}`, `digest ""`},
		{"short digest", "sha256:abc", PredicateSPDX, `{}`, `digest "sha256:abc"`},
		{"sha512", "sha512:" + strings.Repeat("0", 128), PredicateSPDX, `{}`, "want sha256:"},
		{"upper case", strings.ToUpper(digest), PredicateSPDX, `{}`, "want sha256:"},
		{"no type", digest, "", `{}`, "no predicate type"},
		{"no document", digest, PredicateSPDX, `{`, "not a JSON document"},
		{"no predicate", digest, PredicateSPDX, ``, "not a JSON document"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := NewStatement(c.digest, c.predicateType, json.RawMessage(c.predicate))
			wantError(t, err, c.want)
			if err == nil && (!s.About(digest) || s.About(digestOf("db"))) {
				t.Error("about the wrong digest")
			}
		})
	}
}

func hostileStatements(t testing.TB) []hostile {
	data, err := statement(t, aRelease(), digestOf("web")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	hex := digestOf("web")[len("sha256:"):]
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	return []hostile{
		{"good", good, ""},
		{"older type", swap(TypeStatement, typeStatementV01), ""},
		{"later type", swap(TypeStatement, "https://in-toto.io/Statement/v2"), "type "},
		{"twice", swap(`"predicateType"`, `"predicateType":"x","predicateType"`), `member "predicateType" twice`},
		{"case", swap(`"predicateType"`, `"predicatetype"`), `want "predicateType"`},
		{"unknown", swap(`"predicateType"`, `"more":1,"predicateType"`), `unknown field "more"`},
		{"trailing", good + "x", "data behind"},
		{"no subject", swap(`[{"digest":{"sha256":"`+hex+`"}}]`, `[]`), "no subject"},
		{"no digest", swap(`{"sha256":"`+hex+`"}`, `{}`), "subject 0 has no digest"},
		{"algorithm twice", swap(`{"sha256":`, `{"sha256":"00","sha256":`), `member "sha256" twice`},
		{"digest of another type", swap(`{"sha256":"`+hex+`"}`, `{"sha256":1}`), "cannot unmarshal"},
	}
}

func TestParseStatementRefuses(t *testing.T) {
	for _, c := range hostileStatements(t) {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseStatement([]byte(c.data))
			wantError(t, err, c.want)
		})
	}
}

func TestReleaseRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Release)
		want   string
	}{
		{"good", func(*Release) {}, ""},
		{"bare", func(r *Release) { r.Artifacts, r.Increments, r.MinimumEpoch = nil, nil, 0 }, ""},
		{"no name", func(r *Release) { r.Name = "" }, `name ""`},
		{"path for a name", func(r *Release) { r.Name = "../web" }, `name "../web"`},
		{"channel", func(r *Release) { r.Channel = "Stable\x1b[2J" }, `channel "Stable\x1b[2J"`},
		{"version", func(r *Release) { r.Version = "1 0" }, `version "1 0"`},
		{"epoch 0", func(r *Release) { r.Epoch, r.MinimumEpoch = 0, 0 }, "epoch 0"},
		{"epoch too large", func(r *Release) { r.Epoch = MaxEpoch + 1 }, "want 1 to 9007199254740991"},
		{"minimum above", func(r *Release) { r.MinimumEpoch = 8 }, "minimum epoch 8"},
		{"minimum negative", func(r *Release) { r.MinimumEpoch = -1 }, "minimum epoch -1"},
		{"expired at birth", func(r *Release) { r.Expires = r.Issued }, "expires before"},
		{"no times", func(r *Release) { r.Issued, r.Expires = time.Time{}, time.Time{} }, "issued 0001"},
		{"artifact twice", func(r *Release) { r.Artifacts[1].Name = "zone" }, `artifact "zone" is there twice`},
		{"artifact without a name", func(r *Release) { r.Artifacts[0].Name = "" }, "want visible ASCII"},
		{"artifact steers a terminal", func(r *Release) { r.Artifacts[0].MediaType = "\x1b[2J" }, `name or media type "\x1b[2J"`},
		{"artifact digest", func(r *Release) { r.Artifacts[0].Digest = "md5:0" }, `digest "md5:0"`},
		{"artifact uncompressed", func(r *Release) { r.Artifacts[0].UncompressedDigest = "x" }, "uncompressed: digest"},
		{"artifact size", func(r *Release) { r.Artifacts[0].Size = -1 }, "negative size"},
		{"increment base", func(r *Release) { r.Increments[0].From = "x" }, "increment: base: digest"},
		{"increment of another image", func(r *Release) { r.Increments[0].Artifact = digestOf("other") }, "is none of the release"},
		{"everything", func(r *Release) { *r = Release{} }, "version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := aRelease()
			c.change(&r)
			s, err := r.Statement(digestOf("web"))
			wantError(t, err, c.want)
			if err != nil {
				return
			}
			got, err := s.Release()
			if err != nil {
				t.Fatal(err)
			}
			if got.Epoch != r.Epoch || !got.Expires.Equal(r.Expires) || len(got.Artifacts) != len(r.Artifacts) {
				t.Errorf("got %+v, want %+v", got, r)
			}
			if a := got.Artifact("zone"); len(r.Artifacts) > 0 && (a == nil || a.UncompressedDigest != digestOf("zone.tar")) {
				t.Errorf("artifact zone is %+v", a)
			}
			if got.Artifact("none") != nil {
				t.Error("an artifact that is none")
			}
		})
	}
	if _, err := (Release{}).Statement(digestOf("web")); strings.Count(err.Error(), ";") < 4 {
		t.Errorf("not all problems at once: %v", err)
	}
}

// FuzzRelease looks at predicates inside a statement that is right.
func FuzzRelease(f *testing.F) {
	s := statement(f, aRelease(), digestOf("web"))
	f.Add([]byte(s.Predicate))
	f.Add([]byte(statement(f, Release{Name: "a", Version: "1", Channel: "b", Epoch: 1, Issued: now, Expires: now.Add(day)}, digestOf("web")).Predicate))
	f.Add([]byte(`{"name":"a","reason":"b","issued":"2026-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, predicate []byte) {
		one, two := *s, *s
		one.Predicate, two.Predicate, two.PredicateType = predicate, predicate, PredicateRevocation
		if r, err := one.Release(); err == nil {
			again, err := r.Statement(digestOf("web"))
			if err != nil || !bytes.Equal(again.Predicate, predicate) {
				t.Errorf("%q became %q (%v)", predicate, again.Predicate, err)
			}
		}
		if r, err := two.Revocation(); err == nil {
			again, err := r.Statement(digestOf("web"))
			if err != nil || !bytes.Equal(again.Predicate, predicate) {
				t.Errorf("%q became %q (%v)", predicate, again.Predicate, err)
			}
		}
	})
}

// TestReleaseDecoding refuses what [Release.Statement] would never write.
func TestReleaseDecoding(t *testing.T) {
	good := statement(t, aRelease(), digestOf("web"))
	swap := func(old, new string) func(*Statement) {
		return func(s *Statement) {
			p := strings.Replace(string(s.Predicate), old, new, 1)
			if p == string(s.Predicate) {
				t.Fatalf("%q is not in it", old)
			}
			s.Predicate = json.RawMessage(p)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Statement)
		want   string
	}{
		{"good", func(*Statement) {}, ""},
		{"older statement", func(s *Statement) { s.Type = typeStatementV01 }, "statement of type"},
		{"other predicate", func(s *Statement) { s.PredicateType = PredicateRevocation }, "predicate of type"},
		{"two subjects", func(s *Statement) { s.Subject = append(s.Subject, s.Subject[0]) }, "want one subject"},
		{"two digests", func(s *Statement) {
			s.Subject = []Subject{{Digest: map[string]string{"sha256": "0", "sha512": "0"}}}
		}, "want one subject with one digest"},
		{"unknown", swap(`"name"`, `"keep":1,"name"`), `unknown field "keep"`},
		{"twice", swap(`"epoch":7`, `"epoch":7,"epoch":8`), `member "epoch" twice`},
		{"case", swap(`"epoch":7`, `"epoch":7,"Epoch":8`), `want "epoch"`},
		{"missing", swap(`"minimumEpoch":3,`, ``), "not in its canonical encoding"},
		{"zone of time", swap(`T12:00:00Z`, `T14:00:00+02:00`), "issued"},
		{"offset zero", swap(`T12:00:00Z`, `T12:00:00+00:00`), "issued"},
		{"fraction", swap(`T12:00:00Z`, `T12:00:00.5Z`), "whole seconds"},
		{"fraction zero", swap(`T12:00:00Z`, `T12:00:00.0Z`), "not in its canonical encoding"},
		{"epoch as text", swap(`"epoch":7`, `"epoch":"7"`), "cannot unmarshal"},
		{"epoch with a fraction", swap(`"epoch":7`, `"epoch":7.5`), "cannot unmarshal"},
		{"epoch with an exponent", swap(`"epoch":7`, `"epoch":7e0`), "cannot unmarshal"},
		{"epoch beyond", swap(`"epoch":7`, `"epoch":9223372036854775808`), "cannot unmarshal"},
		{"guid as number", swap(`"12345678901234567890"`, `12345678901234567890`), "unquoted value"},
		{"guid with a zero", swap(`"12345678901234567890"`, `"012345678901234567890"`), "not in its canonical encoding"},
		{"order", swap(`"name":"web","version":"1.4.0"`, `"version":"1.4.0","name":"web"`), "not in its canonical encoding"},
		{"spaces", swap(`"name":`, `"name": `), "not in its canonical encoding"},
		{"null list", swap(`"artifacts":[`, `"increments":null,"artifacts":[`), "twice"},
		{"escape", swap(`"web"`, `"w\u0065b"`), "not in its canonical encoding"},
		{"null", func(s *Statement) { s.Predicate = json.RawMessage("null") }, "name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := *good
			c.change(&s)
			r, err := s.Release()
			wantError(t, err, c.want)
			if (r != nil) != (err == nil) {
				t.Errorf("got %v and %v", r, err)
			}
		})
	}
}

func TestRevocation(t *testing.T) {
	s, err := Revocation{Name: "web", Reason: "a reason", Issued: now.Add(time.Nanosecond)}.Statement(digestOf("web"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Revocation()
	if err != nil || r.Reason != "a reason" || !r.Issued.Equal(now) {
		t.Errorf("got %+v, %v", r, err)
	}
	_, err = Revocation{Name: "Web", Reason: " ", Issued: time.Time{}}.Statement(digestOf("web"))
	wantError(t, err, "want a reason")
	wantError(t, err, `name "Web"`)
	_, err = Revocation{Name: "web", Reason: "one\ntwo\x1b[2J", Issued: now}.Statement(digestOf("web"))
	wantError(t, err, "on one line")
	_, err = s.Release()
	wantError(t, err, "predicate of type")
}

func FuzzParseStatement(f *testing.F) {
	for _, c := range hostileStatements(f) {
		f.Add([]byte(c.data))
	}
	f.Add([]byte(fmt.Sprintf(`{"_type":%q,"subject":[{"digest":{"sha256":"00"}}],"predicateType":%q,"predicate":{"name":"a","reason":"b","issued":"2026-01-01T00:00:00Z"}}`, TypeStatement, PredicateRevocation)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseStatement(data)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseStatement(again); err != nil {
			t.Fatalf("what was parsed is written as %q: %v", again, err)
		}
	})
}
