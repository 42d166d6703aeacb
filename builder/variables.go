package builder

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
)

// envPrefix starts the names of environment variables that set a variable.
const envPrefix = "ISC_VAR_"

// A variable is a variable block.
type variable struct {
	name       string
	block      *hclsyntax.Block
	typ        cty.Type // cty.DynamicPseudoType if neither type nor default says
	sensitive  bool
	value      cty.Value // cty.NilVal as long as there is none
	validation []validation
}

// The types that variable blocks decode into.
type (
	variableBody struct {
		Type        hcl.Expression `hcl:"type,optional"`
		Default     hcl.Expression `hcl:"default,optional"`
		Description string         `hcl:"description,optional"`
		Sensitive   bool           `hcl:"sensitive,optional"`
		Validation  []validation   `hcl:"validation,block"`
	}
	validation struct {
		Condition hcl.Expression `hcl:"condition"`
		Message   hcl.Expression `hcl:"error_message"`
	}
)

// variables reads the variable blocks, gives them their values and makes the context for
// everything else. A variable whose value is wrong is unknown to what uses it.
func (p *parser) variables(blocks []*hclsyntax.Block) {
	p.ctx = &hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.EmptyObjectVal, "local": cty.EmptyObjectVal},
		Functions: Functions(p.spec.Dir),
	}
	vars := map[string]*variable{}
	for _, b := range blocks {
		v := p.variable(b)
		switch {
		case v == nil:
		case vars[v.name] != nil:
			p.errorf(b.DefRange(), "Duplicate variable", "Variable %q is declared at %s already.", v.name, vars[v.name].block.DefRange())
		default:
			vars[v.name] = v
		}
	}
	p.fromEnv(vars)
	for _, name := range p.opts.VarFiles {
		p.fromFile(vars, name)
	}
	p.fromFlags(vars)

	values := map[string]cty.Value{}
	for _, name := range sortedKeys(vars) {
		v := vars[name]
		if v.value == cty.NilVal {
			p.errorf(v.block.DefRange(), "Missing value", "Variable %q has no default: set it with --var %s=…, in a --var-file, or in the environment as %s%s.", name, name, envPrefix, name)
			v.value = cty.DynamicVal
		}
		p.validate(v)
		values[name] = v.value
		p.spec.Inputs.note(v)
	}
	p.ctx.Variables["var"] = cty.ObjectVal(values)
}

// variable reads one block, with the default as value.
func (p *parser) variable(b *hclsyntax.Block) *variable {
	if len(b.Labels) != 1 || !hclsyntax.ValidIdentifier(b.Labels[0]) {
		p.errorf(b.DefRange(), "Invalid variable", "A variable block has one label, a name of letters, digits, _ and -.")
		return nil
	}
	v := &variable{name: b.Labels[0], block: b, typ: cty.DynamicPseudoType}
	// Only a default may look at the environment: what an image depends on is declared.
	ctx := &hcl.EvalContext{Functions: defaultFunctions(p.spec.Dir, p.opts.Env)}
	var body variableBody
	diags := gohcl.DecodeBody(b.Body, ctx, &body)
	p.diags = append(p.diags, diags...)
	if diags.HasErrors() {
		v.value = cty.DynamicVal
		return v
	}
	v.sensitive, v.validation = body.Sensitive, body.Validation
	if b.Body.Attributes["type"] != nil {
		var diags hcl.Diagnostics
		v.typ, diags = typeexpr.TypeConstraint(body.Type)
		p.diags = append(p.diags, diags...)
		if diags.HasErrors() {
			v.value = cty.DynamicVal
		}
	}
	if attr := b.Body.Attributes["default"]; attr != nil {
		val, diags := p.value(attr.Expr, ctx)
		p.diags = append(p.diags, diags...)
		if v.typ == cty.DynamicPseudoType && !diags.HasErrors() {
			v.typ = val.Type()
		}
		p.assign(v, val, attr.Expr.Range())
	}
	return v
}

// assign converts a value to the variable's type.
func (p *parser) assign(v *variable, val cty.Value, at hcl.Range) {
	converted, err := convert.Convert(val, v.typ)
	if err != nil {
		p.errorf(at, "Unsuitable value type", "Variable %q is a %s: %v.", v.name, typeexpr.TypeString(v.typ), err)
		converted = cty.DynamicVal
	}
	v.value = converted
}

// assignText sets a variable from a flag or the environment: as it is for a string, as an HCL
// expression without variables for anything else.
func (p *parser) assignText(v *variable, text, from string) {
	if !v.sensitive {
		p.spec.Texts[from] = []byte(text)
	}
	at := hcl.Range{Filename: from, Start: hcl.InitialPos, End: hcl.Pos{Line: 1, Column: 1, Byte: len(text)}}
	if v.typ == cty.String || v.typ == cty.DynamicPseudoType {
		v.value = cty.StringVal(text)
		return
	}
	val, diags := parseValue(from, text, hcl.InitialPos, nil)
	if diags.HasErrors() {
		if v.sensitive || v.typ.IsPrimitiveType() {
			// "x" for a number is better explained by its type than by HCL's grammar.
			p.assign(v, cty.StringVal(text), at)
			return
		}
		p.diags = append(p.diags, diags...)
		v.value = cty.DynamicVal
		return
	}
	p.assign(v, val, at)
}

// parseValue evaluates an expression that stands alone.
func parseValue(filename, text string, start hcl.Pos, ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	expr, diags := parseExpression(filename, text, start)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	return expr.Value(ctx)
}

func parseExpression(filename, text string, start hcl.Pos) (hclsyntax.Expression, hcl.Diagnostics) {
	if diags := hcltext.Bounded(filename, []byte(text)); diags.HasErrors() {
		return nil, diags
	}
	return hclsyntax.ParseExpression([]byte(text), filename, start)
}

func (p *parser) fromEnv(vars map[string]*variable) {
	for _, kv := range p.opts.Env {
		key, value, _ := strings.Cut(kv, "=")
		name, ok := strings.CutPrefix(key, envPrefix)
		// The environment is shared with others: what is not declared is not ours.
		if v := vars[name]; ok && v != nil {
			p.assignText(v, value, key)
		}
	}
}

func (p *parser) fromFlags(vars map[string]*variable) {
	for _, name := range sortedKeys(p.opts.Vars) {
		from := "--var " + name
		v := vars[name]
		if v == nil {
			p.spec.Texts[from] = []byte(name)
			at := hcl.Range{Filename: from, Start: hcl.InitialPos, End: hcl.Pos{Line: 1, Column: 1, Byte: len(name)}}
			p.errorf(at, "Undeclared variable", "The spec has no variable %q.%s", name, hcltext.Suggest(name, sortedKeys(vars)))
			continue
		}
		p.assignText(v, p.opts.Vars[name], from)
	}
}

// fromFile reads a file of lines name = value, or a JSON object.
func (p *parser) fromFile(vars map[string]*variable, filename string) {
	src, err := readBounded(filename)
	if err != nil {
		at := hcl.Range{Filename: filename, Start: hcl.InitialPos}
		p.errorf(at, "Unreadable --var-file", "%s.", err)
		return
	}
	p.spec.Texts[filename] = src
	var body hcl.Body
	var diags hcl.Diagnostics
	if strings.EqualFold(filepath.Ext(filename), ".json") {
		var file *hcl.File
		if diags = hcltext.Bounded(filename, src); !diags.HasErrors() {
			file, diags = hcljson.Parse(src, filename)
		}
		if file != nil {
			body = file.Body
		}
	} else if b, d := parseBody(filename, src); b != nil {
		body, diags = b, d
	} else {
		diags = d
	}
	p.diags = append(p.diags, diags...)
	if diags.HasErrors() {
		return
	}
	attrs, diags := body.JustAttributes()
	p.diags = append(p.diags, diags...)
	for _, name := range sortedKeys(attrs) {
		attr := attrs[name]
		v := vars[name]
		if v == nil {
			// Only a warning, as in Packer: one file may serve several specs.
			at := attr.NameRange
			p.diags = append(p.diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning, Summary: "Undeclared variable", Subject: &at,
				Detail: fmt.Sprintf("The spec has no variable %q.%s", name, hcltext.Suggest(name, sortedKeys(vars))),
			})
			continue
		}
		val, diags := attr.Expr.Value(nil)
		p.diags = append(p.diags, diags...)
		p.assign(v, val, attr.Expr.Range())
	}
}

// validate evaluates the conditions of a variable, which may use only its own value.
func (p *parser) validate(v *variable) {
	if !v.value.IsWhollyKnown() {
		return
	}
	ctx := p.ctx.NewChild()
	ctx.Variables = map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{v.name: v.value})}
	for _, check := range v.validation {
		val, diags := check.Condition.Value(ctx)
		p.diags = append(p.diags, diags...)
		if diags.HasErrors() {
			continue
		}
		ok, err := convert.Convert(val, cty.Bool)
		if err != nil || !ok.IsKnown() || ok.IsNull() {
			p.errorf(check.Condition.Range(), "Invalid condition", "A condition is true or false.")
			continue
		}
		if ok.True() {
			continue
		}
		message := "Its condition does not hold."
		text, diags := check.Message.Value(ctx)
		p.diags = append(p.diags, diags...)
		if text, err := convert.Convert(text, cty.String); err == nil && text.IsKnown() && !text.IsNull() {
			message = text.AsString()
		}
		p.errorf(check.Condition.Range(), "Invalid value for variable "+v.name, "%s", message)
	}
}

// locals evaluates the locals blocks, each value after those that it uses.
func (p *parser) locals(blocks []*hclsyntax.Block) {
	attrs := map[string]*hclsyntax.Attribute{}
	for _, b := range blocks {
		if len(b.Labels) > 0 {
			p.errorf(b.LabelRanges[0], "Extraneous label", "No labels are expected for locals blocks.")
		}
		for _, nested := range b.Body.Blocks {
			p.errorf(nested.TypeRange, "Unsupported block type", "A locals block holds values only.")
		}
		for _, name := range sortedKeys(b.Body.Attributes) {
			attr := b.Body.Attributes[name]
			if first := attrs[name]; first != nil {
				p.errorf(attr.NameRange, "Duplicate local", "%q is defined at %s already.", name, first.NameRange)
				continue
			}
			attrs[name] = attr
		}
	}
	// Unknown until evaluated, so that a name that exists is never reported as missing.
	values := map[string]cty.Value{}
	for name := range attrs {
		values[name] = cty.DynamicVal
	}
	p.ctx.Variables["local"] = cty.ObjectVal(values)
	state := map[string]int{} // 1: being evaluated, 2: done
	var evaluate func(name string)
	evaluate = func(name string) {
		attr := attrs[name]
		if attr == nil || state[name] == 2 {
			return
		}
		if state[name] == 1 {
			p.errorf(attr.NameRange, "Circular local", "The value of %q depends on itself.", name)
			return
		}
		state[name] = 1
		for _, t := range attr.Expr.Variables() {
			if root, used := reference(t); root == "local" {
				evaluate(used)
			}
		}
		state[name] = 2
		val, diags := p.value(attr.Expr, p.ctx)
		p.diags = append(p.diags, diags...)
		if diags.HasErrors() {
			val = cty.DynamicVal
		}
		values[name] = val
		p.ctx.Variables["local"] = cty.ObjectVal(values)
	}
	for _, name := range sortedKeys(attrs) {
		evaluate(name)
	}
}

// reference returns the first two names of a traversal.
func reference(t hcl.Traversal) (root, name string) {
	if len(t) < 2 {
		return t.RootName(), ""
	}
	switch step := t[1].(type) {
	case hcl.TraverseAttr:
		name = step.Name
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
			name = step.Key.AsString()
		}
	}
	return t.RootName(), name
}

// value evaluates an expression. A name below var or local that does not exist is reported with a
// suggestion, which HCL does not make.
func (p *parser) value(expr hclsyntax.Expression, ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	for _, t := range expr.Variables() {
		root, name := reference(t)
		known := ctx.Variables[root]
		if name == "" || known == cty.NilVal || !known.Type().IsObjectType() || known.Type().HasAttribute(name) {
			continue
		}
		names := sortedKeys(known.Type().AttributeTypes())
		what := map[string]string{"var": "variable", "local": "local"}[root]
		at := t.SourceRange()
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Undeclared " + what, Subject: &at,
			Detail: fmt.Sprintf("The spec has no %s %q.%s", what, name, hcltext.Suggest(name, names)),
		})
	}
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	return expr.Value(ctx)
}

// readBounded reads a whole file that must be regular and small.
func readBounded(filename string) ([]byte, error) {
	f, err := os.Open(filename)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", filename)
	}
	data, err := io.ReadAll(io.LimitReader(f, hcltext.Max+1))
	if err != nil {
		return nil, err
	}
	if len(data) > hcltext.Max {
		return nil, fmt.Errorf("%q has more than %d bytes", filename, hcltext.Max)
	}
	return slices.Clip(data), nil
}
