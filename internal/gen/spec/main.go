// Spec writes the reference of the spec's blocks from the comments of the types that they decode into;
// go generate runs it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/goldenisc/packer-plugin-isc/builder"
)

const head = `# The spec file

<!-- Written by make generate from the comments in the source. -->

A spec describes one image. It is an HCL2 file; ` + "`iscadm init`" + ` writes one to start from. Its blocks have no labels, and the same
blocks stand in a ` + "`source \"isc-image\"`" + ` of Packer. ` + "`variable` and `locals`" + ` blocks and most functions are those of Packer.
Sizes are written as "512MiB" or "2GiB". A spec needs ` + "`image`" + ` and ` + "`base`" + ` (or ` + "`disk`" + `); without a block that asks for
an artifact it gives a zone archive.

`

func main() {
	log.SetFlags(0)
	root := flag.String("root", ".", "the `FOLDER` of the module")
	out := flag.String("o", "docs/spec.md", "write to `FILE`")
	partial := flag.String("partial", "", "write the blocks alone to `FILE`")
	flag.Parse()
	g := &generator{types: map[string]*ast.TypeSpec{}, docs: map[string]*ast.CommentGroup{}}
	for _, dir := range []string{"builder", "profiles"} {
		if err := g.load(filepath.Join(*root, dir)); err != nil {
			log.Fatal(err)
		}
	}
	g.fields("builder.Spec", "", 2)
	for _, k := range builder.Kinds {
		w, _ := k.New(hcl.EmptyBody(), nil)
		g.block(k.Block, "builder."+reflect.TypeOf(w).Elem().Name(), true, 2)
	}
	if err := os.WriteFile(*out, append([]byte(head), g.out.Bytes()...), 0o644); err != nil {
		log.Fatal(err)
	}
	if *partial != "" {
		if err := os.WriteFile(*partial, bytes.ReplaceAll(g.out.Bytes(), []byte("\n## "), []byte("\n### ")), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// A generator writes the blocks of types that it has loaded, by package and name.
type generator struct {
	types map[string]*ast.TypeSpec
	docs  map[string]*ast.CommentGroup
	out   bytes.Buffer
}

func (g *generator) load(dir string) error {
	files := token.NewFileSet()
	names, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(files, filepath.Join(dir, name), nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range decl.Specs {
				if t, ok := s.(*ast.TypeSpec); ok {
					name := filepath.Base(dir) + "." + t.Name.Name
					g.types[name], g.docs[name] = t, decl.Doc
				}
			}
		}
	}
	return nil
}

// block writes one block and those in it.
func (g *generator) block(name, typ string, repeatable bool, level int) {
	fmt.Fprintf(&g.out, "\n%s %s\n\n", strings.Repeat("#", level), name)
	text := doc(g.docs[typ])
	if repeatable {
		text += " It may stand several times."
	}
	fmt.Fprintf(&g.out, "%s\n\n", strings.TrimSpace(text))
	g.fields(typ, name, level+1)
}

// fields writes the attributes of a type, and then its blocks.
func (g *generator) fields(typ, name string, level int) {
	for _, f := range g.list(typ, name) {
		if f.kind == "block" {
			continue
		}
		need := ""
		if f.kind == "" {
			need = ", required"
		}
		text := doc(f.Doc)
		if text == "" {
			text = doc(f.Comment)
		}
		if text != "" {
			text = ": " + text
		}
		fmt.Fprintf(&g.out, "- `%s` (%s%s)%s\n", f.name, kindOf(f.Type), need, text)
	}
	for _, f := range g.list(typ, name) {
		if f.kind == "block" {
			_, repeatable := f.Type.(*ast.ArrayType)
			g.block(f.name, typeName(f.pkg, f.Type), repeatable, level)
		}
	}
}

// A field is one with a tag of package gohcl.
type field struct {
	*ast.Field
	pkg, name, kind string
}

// list returns the fields of a type, those of a type that takes what remains among them.
func (g *generator) list(typ, name string) (list []field) {
	t := g.types[typ]
	if t == nil {
		log.Fatalf("block %q: there is no type %q", name, typ)
	}
	s, ok := t.Type.(*ast.StructType)
	if !ok {
		log.Fatalf("block %q: %q is no struct", name, typ)
	}
	pkg, _, _ := strings.Cut(typ, ".")
	for _, f := range s.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("hcl")
		attr, kind, _ := strings.Cut(tag, ",")
		switch {
		case kind == "remain":
			list = append(list, g.list(typeName(pkg, f.Type), name)...)
		case attr != "":
			list = append(list, field{f, pkg, attr, kind})
		}
	}
	return list
}

// doc is a comment on one line. Names in brackets are links for Go's documentation only.
func doc(c *ast.CommentGroup) string {
	text := strings.Join(strings.Fields(c.Text()), " ")
	return strings.NewReplacer("[image.NewMatcher]", "file names: `*`, `?`, `[…]`, and `**` for any number of folders", "[", "`", "]", "`").Replace(text)
}

// typeName names a type of the package, by package.
func typeName(pkg string, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return pkg + "." + e.Name
	case *ast.SelectorExpr:
		return e.X.(*ast.Ident).Name + "." + e.Sel.Name
	case *ast.StarExpr:
		return typeName(pkg, e.X)
	case *ast.ArrayType:
		return typeName(pkg, e.Elt)
	}
	log.Fatalf("type %T is not expected", e)
	return ""
}

// kindOf names a type in the words of HCL.
func kindOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return kindOf(e.X)
	case *ast.ArrayType:
		return "list of " + kindOf(e.Elt)
	case *ast.MapType:
		return "map of " + kindOf(e.Value)
	case *ast.Ident:
		switch e.Name {
		case "int", "int64", "float64":
			return "number"
		}
		return e.Name
	}
	log.Fatalf("type %T is not expected", e)
	return ""
}
