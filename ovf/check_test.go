package ovf

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// writeOVA returns an appliance as an OVA.
func writeOVA(t testing.TB, a *Appliance, opt Options) []byte {
	t.Helper()
	p, err := a.Package(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := p.WriteOVA(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func checkBytes(t testing.TB, data []byte) *Report {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.ova")
	save(t, file, data)
	r, err := Check(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What is written for a target is refused there by nobody, and by nobody at all if it is universal.
func TestCheckOurs(t *testing.T) {
	key, cert := testKey(t)
	for name, a := range appliances(t) {
		for _, manifest := range []Digest{SHA256, SHA512, None} {
			opt := Options{Manifest: manifest}
			if manifest != None {
				opt.Key, opt.Certificates = key, []*x509.Certificate{cert}
			}
			r := checkBytes(t, writeOVA(t, a, opt))
			if len(r.Disks) != len(a.Disks) {
				t.Errorf("%s: %d disks are in order, of %d", name, len(r.Disks), len(a.Disks))
			}
			if manifest != None && (r.Signer == nil || !strings.Contains(r.Signer.Subject, "Example Release")) {
				t.Errorf("%s: signer %v", name, r.Signer)
			}
			for _, who := range Importers {
				meant := who == Importer(a.Target) || a.Target == Universal && who != Vcsim || who == VirtV2V && !a.OVF2
				if meant && r.Refused(who) {
					t.Errorf("%s with manifest %s is refused: %v", name, manifest, refusals(r.Findings, who))
				}
			}
		}
	}
	a := testAppliance(t, Universal)
	if r := checkBytes(t, writeOVA(t, a, Options{})); len(refusals(r.Findings, Vcsim)) != 1 {
		t.Errorf("vcsim has no SATA: %v", r.Findings)
	}
	a.Disks = testDisks(t, LSILogic, LSILogic)
	a.EULA = ""
	if r := checkBytes(t, writeOVA(t, a, Options{})); len(r.Findings) != 0 {
		t.Errorf("findings: %v", r.Findings)
	}
}

// unpack returns the members of an archive.
func unpack(t testing.TB, data []byte) (names []string, files map[string][]byte) {
	t.Helper()
	files = map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return names, files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Format != tar.FormatUSTAR || h.Mode != 0o644 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(time.Unix(1e9, 0)) {
			t.Errorf("header %+v", h)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names, files[h.Name] = append(names, h.Name), b
	}
}

// pack returns an archive of files in an order.
func pack(t testing.TB, names []string, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, n := range names {
		if err := w.WriteHeader(&tar.Header{Name: n, Size: int64(len(files[n])), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(files[n])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCheckDamage(t *testing.T) {
	key, cert := testKey(t)
	a := testAppliance(t, Universal)
	a.EULA = ""
	opt := Options{Key: key, Certificates: []*x509.Certificate{cert}, ModTime: time.Unix(1e9, 0)}
	good := writeOVA(t, a, opt)
	const (
		ovf, mf, crt = "web-1.4.0.ovf", "web-1.4.0.mf", "web-1.4.0.cert"
		disk1, disk2 = "web-1.4.0-disk1.vmdk", "web-1.4.0-disk2.vmdk"
	)
	replace := func(name, old, new string) func([]string, map[string][]byte) []string {
		return func(names []string, files map[string][]byte) []string {
			if !bytes.Contains(files[name], []byte(old)) {
				t.Fatalf("no %q in %s", old, name)
			}
			files[name] = bytes.Replace(files[name], []byte(old), []byte(new), 1)
			return names
		}
	}
	without := func(name string) func([]string, map[string][]byte) []string {
		return func(names []string, _ map[string][]byte) []string {
			return slices.DeleteFunc(names, func(n string) bool { return n == name })
		}
	}
	// unsigned takes away all that tells of a change.
	unsigned := func(change func([]string, map[string][]byte) []string) func([]string, map[string][]byte) []string {
		return func(names []string, files map[string][]byte) []string {
			return without(mf)(without(crt)(change(names, files), files), files)
		}
	}
	// manifest changes the manifest and takes away what signs it.
	manifest := func(name, old, new string) func([]string, map[string][]byte) []string {
		return func(names []string, files map[string][]byte) []string {
			names = without(crt)(replace(mf, old, new)(names, files), files)
			names[1], files[name] = name, files[mf]
			return names
		}
	}
	inFolder := func(names []string, files map[string][]byte) []string {
		for i, n := range names {
			names[i], files["web/"+n] = "web/"+n, files[n]
		}
		return names
	}
	collect := func(names []string, files map[string][]byte) []string {
		files[ovf] = bytes.Replace(files[ovf], []byte("<VirtualSystem "), []byte(`<VirtualSystemCollection ovf:id="c"><Info>i</Info><VirtualSystem `), 1)
		files[ovf] = bytes.Replace(files[ovf], []byte("</VirtualSystem>"), []byte("</VirtualSystem></VirtualSystemCollection>"), 1)
		return names
	}
	all := []Importer{VirtualBox7, ESXi, VirtV2V, ProxmoxVE, Vcsim}
	for name, c := range map[string]struct {
		change  func(names []string, files map[string][]byte) []string
		refused []Importer // besides vcsim, which has no SATA
		want    string     // in a finding
	}{
		"another manifest":   {manifest("other.mf", "= ", "= 00"), []Importer{VirtV2V}, `"web-1.4.0.mf": some do not look`},
		"manifest's case":    {manifest("web-1.4.0.MF", "= ", "= 00"), []Importer{VirtualBox7}, "the file was changed"},
		"a line of no sense": {manifest(mf, "SHA256", "junk\nSHA256"), []Importer{VirtualBox7, ESXi}, mf + ":1: warning for everyone"},
		"lines behind it":    {manifest(mf, "SHA256", "junk\nSHA256("+disk1+")= 00\nSHA256"), []Importer{VirtualBox7, ESXi, VirtV2V}, disk1 + ": warning for everyone: SHA256 is"},
		"MD5":                {manifest(mf, "SHA256", "MD5("+disk1+")= 00\nSHA256"), []Importer{VirtualBox7, ESXi}, "MD5 is"},
		"upper-case digits": {func(n []string, f map[string][]byte) []string {
			n = manifest(mf, "", "")(n, f)
			f[mf] = regexp.MustCompile("= .*").ReplaceAllFunc(f[mf], bytes.ToUpper)
			return n
		}, []Importer{VirtV2V}, "upper-case digits"},
		"lower-case name":     {manifest(mf, "SHA256("+disk1+")= ", "sha256("+disk1+")= 00"), []Importer{ESXi}, `warning for virtualbox: digest "sha256" is not verified`},
		"nothing":             {func(n []string, _ map[string][]byte) []string { return n }, nil, ""},
		"descriptor":          {replace(ovf, "2 virtual", "3 virtual"), []Importer{VirtualBox7, ESXi, VirtV2V}, ovf + `: refused by virt-v2v: SHA256 is not that of the manifest`},
		"disk":                {func(n []string, f map[string][]byte) []string { f[disk1][70<<10] ^= 4; return n }, all, "no sound VMDK: grain"},
		"disk's padding":      {func(n []string, f map[string][]byte) []string { f[disk1][40<<10] ^= 4; return n }, []Importer{VirtualBox7, ESXi, VirtV2V}, "the file was changed"},
		"delta disk":          {replace(disk1, "parentCID=ffffffff", "parentCID=12345678"), all, "no sound VMDK: the VMDK is a snapshot"},
		"another extent":      {replace(disk1, "SPARSE", "FLAT  "), all, "one sparse extent"},
		"createType":          {unsigned(replace(disk1, "streamOptimized", "streamoptimized")), []Importer{VirtualBox7}, `refused by virtualbox: its descriptor says "streamoptimized"`},
		"disk cut":            {func(n []string, f map[string][]byte) []string { f[disk2] = f[disk2][:80000]; return n }, all, "it has 80000 bytes"},
		"disk missing":        {without(disk2), all, disk2 + ": refused by everyone: it is not in the package"},
		"manifest":            {replace(mf, "SHA256("+disk1+")= ", "SHA256("+disk1+")= 00"), []Importer{VirtualBox7, ESXi, VirtV2V}, "does not fit the manifest"},
		"no manifest":         {without(mf), []Importer{VirtualBox7, ESXi}, "without a manifest"},
		"manifest is no text": {replace(mf, "SHA256(", "SHA256["), []Importer{VirtualBox7, ESXi}, "is not ALGORITHM(name)= digits"},
		"space":               {replace(mf, "SHA256(", "SHA256 ("), []Importer{VirtualBox7, ESXi}, "a space before the parenthesis"},
		"missing in manifest": {replace(mf, "("+disk1+")", "(other.vmdk)"), []Importer{VirtualBox7, ESXi}, `refused by vmware: "other.vmdk" is not in the package`},
		"certificate":         {replace(crt, "SHA256("+mf+")= ", "SHA256("+mf+")= 00"), []Importer{VirtualBox7, ESXi}, "does not fit the manifest"},
		"certificate's name":  {replace(crt, mf, "other.mf"), []Importer{VirtualBox7}, `signs "other.mf"`},
		"no PEM":              {replace(crt, "-----BEGIN", "-----NOT"), []Importer{VirtualBox7, ESXi}, "no PEM"},
		"unsigned":            {without(crt), nil, ""},
		"folder":              {inFolder, []Importer{VirtualBox7, ESXi, ProxmoxVE}, `refused by proxmox: all is in the folder "web"`},
		"folder, changed":     {func(n []string, f map[string][]byte) []string { return inFolder(replace(mf, "= ", "= 00")(n, f), f) }, []Importer{VirtualBox7, ESXi, ProxmoxVE, VirtV2V}, ovf + ": warning for everyone: SHA256 is"},
		"file beside a folder": {func(n []string, f map[string][]byte) []string {
			f["README"] = nil
			return append(inFolder(n, f), "README")
		}, all, disk1 + ": refused by everyone: it is not in the package"},
		"order":           {func(n []string, _ map[string][]byte) []string { slices.Reverse(n); return n }, []Importer{VirtualBox7}, "the descriptor is not the first"},
		"extra":           {func(n []string, f map[string][]byte) []string { f["README"] = nil; return append(n, "README") }, nil, "strict importers"},
		"two descriptors": {func(n []string, f map[string][]byte) []string { f["other.ovf"] = f[ovf]; return append(n, "other.ovf") }, []Importer{VirtV2V}, "2 descriptors in the archive"},
		"suffix": {func(n []string, f map[string][]byte) []string {
			f["web-1.4.0.OVF"] = f[ovf]
			n[0] = "web-1.4.0.OVF"
			return n
		}, []Importer{ESXi, VirtV2V}, "no name in the archive ends in .ovf"},
		"collection":            {collect, []Importer{VirtualBox7, ESXi, VirtV2V, ProxmoxVE}, "systems of a collection are not read"},
		"empty disk":            {replace(ovf, ` ovf:fileRef="file2"`, ""), []Importer{VirtualBox7, ESXi, VirtV2V}, "it is empty: only disks in a file"},
		"card":                  {replace(ovf, "<rasd:ResourceSubType>E1000<", "<rasd:ResourceSubType>RTL8139<"), []Importer{VirtualBox7, ESXi, VirtV2V}, `warning for vmware: network card "RTL8139": there is none such`},
		"resource type":         {replace(ovf, "<rasd:ResourceType>10<", "<rasd:ResourceType>77<"), []Importer{VirtualBox7, ESXi, VirtV2V}, "resource type 77 is not known"},
		"memory twice":          {replace(ovf, "</Item>", "</Item><Item><rasd:InstanceID>99</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>"), []Importer{VirtualBox7, ESXi, VirtV2V, ProxmoxVE}, "read as one number"},
		"firmware variables":    {replace(ovf, "<BIOS>", `<BIOS><NVRAM path="/home/me/x.nvram"/>`), []Importer{VirtualBox7, ESXi, VirtV2V}, `firmware variables are in "/home/me/x.nvram"`},
		"twice":                 {func(n []string, _ map[string][]byte) []string { return append(n, disk1) }, all, "twice in the archive"},
		"path":                  {func(n []string, f map[string][]byte) []string { return append(n, "../x") }, all, `"../x": not the plain name`},
		"href leaves":           {replace(ovf, `href="`+disk1, `href="../`+disk1), all, "it leaves the package"},
		"href elsewhere":        {replace(ovf, `href="`, `href="http://192.0.2.1/`), []Importer{VirtualBox7, ESXi, VirtV2V, ProxmoxVE}, "it is somewhere else"},
		"size":                  {replace(ovf, `ovf:size="`, `ovf:size="1`), []Importer{VirtualBox7, ESXi, VirtV2V}, "the descriptor says 1"},
		"capacity":              {replace(ovf, `ovf:capacity="`, `ovf:capacity="9`), []Importer{VirtualBox7, ESXi, VirtV2V}, "its capacity is"},
		"document type":         {replace(ovf, "<Envelope", `<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><Envelope`), all, "a document type declaration is refused"},
		"OVF 2":                 {replace(ovf, `xmlns="`+nsOVF1, `xmlns="`+nsOVF2), all, ""},
		"no such disk":          {replace(ovf, "ovf:/disk/vmdisk1", "ovf:/disk/none"), all, `no disk is "ovf:/disk/none"`},
		"two slashes":           {replace(ovf, "ovf:/disk/vmdisk1", "ovf://disk/vmdisk1"), []Importer{VirtualBox7, ESXi, VirtV2V, ProxmoxVE}, "only ovf:/disk/ID"},
		"memory units":          {replace(ovf, "byte * 2^20", "byte * 2^10"), []Importer{VirtualBox7, ESXi, VirtV2V}, `memory in "byte * 2^10"`},
		"family":                {replace(ovf, "vmx-13", "virtualbox-2.2"), []Importer{VirtualBox7, ESXi, VirtV2V}, `unsupported hardware family "virtualbox-2.2"`},
		"required config":       {replace(ovf, `vmw:Config ovf:required="false"`, `vmw:Config ovf:required="true"`), []Importer{VirtualBox7, ESXi, VirtV2V}, `vmw:Config "firmware" is required`},
		"no prefix":             {replace(ovf, ` xmlns:vmw="`+nsVMW+`"`, ""), []Importer{VirtualBox7, ESXi, VirtV2V, ProxmoxVE}, "xmlns:vmw is not declared"},
		"no parent":             {replace(ovf, "<rasd:Parent>3<", "<rasd:Parent>33<"), []Importer{VirtualBox7, ESXi, VirtV2V, ProxmoxVE}, `its parent "33" is no controller`},
		"unknown controller":    {replace(ovf, "vmware.sata.ahci", "megaraid"), []Importer{VirtualBox7, ESXi, VirtV2V}, `storage controller "megaraid"`},
		"firmware":              {replace(ovf, `vmw:value="efi"`, `vmw:value="uboot"`), []Importer{VirtualBox7, ESXi, VirtV2V}, `firmware "uboot"`},
		"no machine of its own": {replace(ovf, "vbox:Machine ", `vbox:Other `), all, "closed by"},
	} {
		names, files := unpack(t, good)
		names = c.change(names, files)
		r := checkBytes(t, pack(t, names, files))
		var text strings.Builder
		for _, f := range r.Findings {
			text.WriteString(f.String() + "\n")
		}
		if !strings.Contains(text.String(), c.want) {
			t.Errorf("%s: want %q in\n%s", name, c.want, text.String())
		}
		for _, who := range all {
			if got, want := r.Refused(who), slices.Contains(c.refused, who); got != want && who != Vcsim {
				t.Errorf("%s: refused by %s: %t, want %t\n%s", name, who, got, want, text.String())
			}
		}
	}
}

// TestCheckHostile are packages that nobody makes by mistake. None makes the check fail, read
// something outside of the package, or take more memory than its limits allow.
func TestCheckHostile(t *testing.T) {
	a := testAppliance(t, Universal)
	names, files := unpack(t, writeOVA(t, a, Options{ModTime: time.Unix(1e9, 0)}))
	const ovf, mf, disk = "web-1.4.0.ovf", "web-1.4.0.mf", "web-1.4.0-disk1.vmdk"
	edit := func(name, old, new string) []byte {
		if !bytes.Contains(files[name], []byte(old)) {
			t.Fatalf("no %q in %s", old, name)
		}
		changed := maps.Clone(files)
		changed[name] = bytes.Replace(files[name], []byte(old), []byte(new), 1)
		return pack(t, names, changed)
	}
	member := func(h *tar.Header) []byte {
		good := pack(t, names, files)
		var extra bytes.Buffer
		w := tar.NewWriter(&extra)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return append(extra.Bytes(), good...)
	}
	line, _, _ := strings.Cut(string(files[mf]), "\n")
	bomb := `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]><Envelope`
	for name, c := range map[string]struct {
		data []byte
		who  Importer
		want string
	}{
		"XML bomb":            {edit(ovf, "<Envelope", bomb), Everyone, "document type declaration is refused"},
		"external entity":     {edit(ovf, "<Envelope", `<!DOCTYPE x SYSTEM "http://192.0.2.1/x.dtd"><Envelope`), Everyone, "document type declaration is refused"},
		"undeclared entity":   {edit(ovf, "<Info>", "<Info>&boom;"), Everyone, "entity"},
		"huge attribute":      {edit(ovf, `ovf:diskId="`, `ovf:diskId="`+strings.Repeat("x", 2<<20)), Everyone, "value of"},
		"many attributes":     {edit(ovf, "<Envelope", "<Envelope"+strings.Repeat(` a:b="c"`, 300)), Everyone, "attributes"},
		"deep":                {edit(ovf, "<References>", strings.Repeat("<x>", 100)+"<References>"), Everyone, "deeper than"},
		"many elements":       {edit(ovf, "<References>", strings.Repeat("<x/>", 200_000)+"<References>"), Everyone, "more than"},
		"many files":          {edit(ovf, "<References>", "<References>"+strings.Repeat("<File/>", 1000)), Everyone, "1002 files: more than 1000"},
		"many disks":          {edit(ovf, "<DiskSection>", "<DiskSection>"+strings.Repeat("<Disk/>", 1000)), Everyone, "1002 disks: more than 1000"},
		"many networks":       {edit(ovf, "<NetworkSection>", "<NetworkSection>"+strings.Repeat("<Network/>", 1000)), Everyone, "networks: more than 1000"},
		"absolute href":       {edit(ovf, `href="`+disk, `href="/etc/passwd`), Everyone, "it leaves the package"},
		"href of Windows":     {edit(ovf, `href="`+disk, `href="C:\windows\win.ini`), Everyone, "it leaves the package"},
		"href through a name": {edit(ovf, `href="`+disk, `href="x/../../`+disk), Everyone, "it leaves the package"},
		"href in other case":  {edit(ovf, `href="`+disk, `href="`+strings.ToUpper(disk)), Everyone, "it is not in the package, which has \"" + disk + "\""},
		"non-ASCII href":      {edit(ovf, `href="`+disk, `href="größe.vmdk`), ProxmoxVE, "characters"},
		"entry twice":         {edit(mf, line, line+"\n"+strings.Replace(line, "= ", "= 00", 1)), VirtV2V, "not that of the manifest"},
		"entry in other case": {edit(mf, "("+disk, "("+strings.ToUpper(disk)), ESXi, "is not in the package"},
		"entry that leaves":   {edit(mf, "("+disk, "(../../etc/passwd"), ESXi, "is not in the package"},
		"symbolic link":       {member(&tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/etc/passwd"}), Everyone, `"link" is not a file`},
		"hard link":           {member(&tar.Header{Typeflag: tar.TypeLink, Name: "link", Linkname: disk}), Everyone, `"link" is not a file`},
		"device":              {member(&tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}), Everyone, `"null" is not a file`},
		"absolute member":     {member(&tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd"}), Everyone, "not the plain name"},
	} {
		r := checkBytes(t, c.data)
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Refused && f.Importer == c.who && strings.Contains(f.Message, c.want) }) {
			t.Errorf("%s: not refused by %s for %q: %v", name, c.who, c.want, r.Findings)
		}
	}
}

// Damage is told however much else there is to tell.
func TestCheckManyFindings(t *testing.T) {
	names, files := unpack(t, writeOVA(t, testAppliance(t, Universal), Options{ModTime: time.Unix(1e9, 0)}))
	const ovf = "web-1.4.0.ovf"
	files[ovf] = bytes.Replace(files[ovf], []byte("</Item>"), []byte("</Item>"+strings.Repeat("<Item/>\n", maxFindings)), 1)
	if r := checkBytes(t, pack(t, names, files)); !r.More || len(r.Findings) != maxFindings || !r.Damaged() {
		t.Errorf("%d findings, more: %t, damaged: %t", len(r.Findings), r.More, r.Damaged())
	}
}

func TestCheckFolder(t *testing.T) {
	a := testAppliance(t, Universal)
	p, err := a.Package(t.Context(), Options{Manifest: SHA1})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	save(t, outside, []byte("secret"))
	for _, m := range p.Members {
		b, err := io.ReadAll(io.NewSectionReader(m.Content, 0, m.Size))
		if err != nil {
			t.Fatal(err)
		}
		save(t, filepath.Join(dir, m.Name), b)
	}
	file := filepath.Join(dir, a.Name+".ovf")
	r, err := Check(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Archive || len(r.Disks) != 2 || !slices.Equal(r.Manifest, []string{"SHA1"}) {
		t.Errorf("%+v", r)
	}
	if got := refusals(r.Findings, ESXi); len(got) != 1 || !strings.Contains(got[0], "vSphere 6.5") {
		t.Errorf("SHA-1: %v", got)
	}
	if runtime.GOOS == "windows" {
		return // where making a link takes a privilege
	}
	// A link that leads out of the folder is not followed.
	disk := filepath.Join(dir, a.Name+"-disk1.vmdk")
	if err := os.Remove(disk); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, disk); err != nil {
		t.Fatal(err)
	}
	if r, err = Check(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if !r.Refused(Everyone) {
		t.Errorf("a link out of the folder: %v", r.Findings)
	}
}

func TestCheckErrors(t *testing.T) {
	a := testAppliance(t, Universal)
	good := writeOVA(t, a, Options{})
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":         {nil, "the file is empty"},
		"a disk":        {smallVMDK(), "a vmdk disk, not an appliance"},
		"xz":            {[]byte("\xfd7zXZ\x00 and so on"), "compressed"},
		"cut early":     {good[:6000], "no OVF descriptor in the archive"},
		"noise":         {bytes.Repeat([]byte("noise"), 300), "neither an OVF descriptor nor a tar archive"},
		"gzip":          {[]byte{0x1f, 0x8b, 8, 0}, "compressed"},
		"no descriptor": {pack(t, []string{"x"}, nil), "no OVF descriptor in the archive"},
	} {
		file := filepath.Join(t.TempDir(), "x")
		save(t, file, c.data)
		if _, err := Check(t.Context(), file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := Check(t.Context(), t.TempDir()); err == nil {
		t.Error("a folder passes")
	}
	if _, err := Check(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("nothing passes")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "x")
	save(t, file, good)
	if _, err := Check(ctx, file); err == nil {
		t.Error("a cancelled check ends well")
	}
	// Cut anywhere, it is told.
	for _, n := range []int{len(good) - 1024, len(good) - 2000, len(good) / 2} {
		if r := checkBytes(t, good[:n]); len(r.Findings) < 2 || n == len(good)/2 && !r.Damaged() {
			t.Errorf("cut at %d: %v", n, r.Findings)
		}
	}
	if r := checkBytes(t, append(bytes.Clone(good), "tail"...)); !slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.Message, "bytes follow") }) {
		t.Errorf("a tail: %v", r.Findings)
	}
}

func TestOVADeterministic(t *testing.T) {
	key, cert := testKey(t)
	opt := Options{Key: key, Certificates: []*x509.Certificate{cert}}
	first := writeOVA(t, testAppliance(t, Universal), opt)
	again := writeOVA(t, testAppliance(t, Universal), opt)
	if !bytes.Equal(first, again) {
		t.Error("two runs, two archives")
	}
}

func TestWriteOVAErrors(t *testing.T) {
	key, cert := testKey(t)
	other, _ := testKey(t)
	a := testAppliance(t, Universal)
	for name, c := range map[string]struct {
		opt  Options
		want string
	}{
		"no certificate": {Options{Key: key}, "signing key without a certificate"},
		"other key":      {Options{Key: other, Certificates: []*x509.Certificate{cert}}, "is not that of the signing key"},
		"nothing signed": {Options{Key: key, Manifest: None, Certificates: []*x509.Certificate{cert}}, "what is signed is the manifest"},
		"algorithm":      {Options{Manifest: "md5"}, `manifest "md5" is not known`},
	} {
		if _, err := a.Package(t.Context(), c.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	a.Disks[1].SHA256[3] ^= 1
	p, err := a.Package(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteOVA(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "not what the manifest tells") {
		t.Errorf("another disk: %v", err)
	}
	if err := p.WriteOVA(t.Context(), &brokenWriter{100}); err == nil {
		t.Error("a broken writer passes")
	}
}
