package builder

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
)

// Functions returns the functions that expressions of a spec may call. Names and behaviour are
// Packer's; paths are relative to dir, the folder of the spec. Those of Packer that give another
// result at each call (timestamp, uuidv4, …) are errors that say why.
func Functions(dir string) map[string]function.Function {
	funcs := textFunctions(dir)
	funcs["templatefile"] = templateFile(dir)
	return funcs
}

// defaultFunctions adds env, which only the default of a variable may call.
func defaultFunctions(dir string, environ []string) map[string]function.Function {
	funcs := Functions(dir)
	env := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	funcs["env"] = stringFunction("name", func(name string) (string, error) { return env[name], nil })
	return funcs
}

// textFunctions are all but templatefile: a template that renders templates might never end.
func textFunctions(dir string) map[string]function.Function {
	funcs := maps.Clone(pure)
	funcs["file"] = stringFunction("path", func(name string) (string, error) {
		data, err := readText(dir, name)
		return string(data), err
	})
	funcs["filebase64"] = stringFunction("path", func(name string) (string, error) {
		data, err := readBounded(local(dir, name))
		return base64.StdEncoding.EncodeToString(data), err
	})
	funcs["filesha256"] = stringFunction("path", func(name string) (string, error) {
		data, err := readBounded(local(dir, name))
		return digest(sha256.New(), data), err
	})
	funcs["abspath"] = stringFunction("path", func(name string) (string, error) {
		abs, err := filepath.Abs(local(dir, name))
		return filepath.ToSlash(abs), err
	})
	return funcs
}

// pure are the functions whose result depends on nothing but their arguments.
var pure = map[string]function.Function{
	"abs":             stdlib.AbsoluteFunc,
	"alltrue":         every(true),
	"anytrue":         every(false),
	"can":             tryfunc.CanFunc,
	"ceil":            stdlib.CeilFunc,
	"chomp":           stdlib.ChompFunc,
	"chunklist":       stdlib.ChunklistFunc,
	"coalesce":        stdlib.CoalesceFunc,
	"coalescelist":    stdlib.CoalesceListFunc,
	"compact":         stdlib.CompactFunc,
	"concat":          stdlib.ConcatFunc,
	"contains":        stdlib.ContainsFunc,
	"convert":         typeexpr.ConvertFunc,
	"csvdecode":       stdlib.CSVDecodeFunc,
	"distinct":        stdlib.DistinctFunc,
	"element":         stdlib.ElementFunc,
	"flatten":         stdlib.FlattenFunc,
	"floor":           stdlib.FloorFunc,
	"format":          boundedFormat(stdlib.FormatFunc),
	"formatdate":      stdlib.FormatDateFunc,
	"formatlist":      boundedFormat(stdlib.FormatListFunc),
	"indent":          stdlib.IndentFunc,
	"join":            stdlib.JoinFunc,
	"jsondecode":      stdlib.JSONDecodeFunc,
	"jsonencode":      stdlib.JSONEncodeFunc,
	"keys":            stdlib.KeysFunc,
	"length":          lengthFunc,
	"lookup":          stdlib.LookupFunc,
	"lower":           stdlib.LowerFunc,
	"max":             stdlib.MaxFunc,
	"merge":           stdlib.MergeFunc,
	"min":             stdlib.MinFunc,
	"parseint":        stdlib.ParseIntFunc,
	"regex":           stdlib.RegexFunc,
	"regexall":        stdlib.RegexAllFunc,
	"regex_replace":   stdlib.RegexReplaceFunc,
	"replace":         stdlib.ReplaceFunc,
	"reverse":         stdlib.ReverseListFunc,
	"setintersection": stdlib.SetIntersectionFunc,
	"setsubtract":     stdlib.SetSubtractFunc,
	"setunion":        stdlib.SetUnionFunc,
	"signum":          stdlib.SignumFunc,
	"slice":           stdlib.SliceFunc,
	"sort":            stdlib.SortFunc,
	"split":           stdlib.SplitFunc,
	"strlen":          stdlib.StrlenFunc,
	"strrev":          stdlib.ReverseFunc,
	"substr":          stdlib.SubstrFunc,
	"timeadd":         stdlib.TimeAddFunc,
	"title":           stdlib.TitleFunc,
	"trim":            stdlib.TrimFunc,
	"trimprefix":      stdlib.TrimPrefixFunc,
	"trimspace":       stdlib.TrimSpaceFunc,
	"trimsuffix":      stdlib.TrimSuffixFunc,
	"try":             tryfunc.TryFunc,
	"upper":           stdlib.UpperFunc,
	"values":          stdlib.ValuesFunc,
	"zipmap":          stdlib.ZipmapFunc,

	"base64encode": stringFunction("value", func(s string) (string, error) {
		return base64.StdEncoding.EncodeToString([]byte(s)), nil
	}),
	"base64decode": stringFunction("value", func(s string) (string, error) {
		data, err := base64.StdEncoding.DecodeString(s)
		if err == nil && !utf8.Valid(data) {
			err = fmt.Errorf("what is encoded is not UTF-8 text")
		}
		return string(data), err
	}),
	"basename":   stringFunction("value", func(s string) (string, error) { return path.Base(s), nil }),
	"dirname":    stringFunction("value", func(s string) (string, error) { return path.Dir(s), nil }),
	"sha1":       stringFunction("value", func(s string) (string, error) { return digest(sha1.New(), []byte(s)), nil }),
	"sha256":     stringFunction("value", func(s string) (string, error) { return digest(sha256.New(), []byte(s)), nil }),
	"sha512":     stringFunction("value", func(s string) (string, error) { return digest(sha512.New(), []byte(s)), nil }),
	"startswith": predicate(strings.HasPrefix),
	"endswith":   predicate(strings.HasSuffix),

	"tobool":   conversion(cty.Bool),
	"tolist":   conversion(cty.List(cty.DynamicPseudoType)),
	"tomap":    conversion(cty.Map(cty.DynamicPseudoType)),
	"tonumber": conversion(cty.Number),
	"toset":    conversion(cty.Set(cty.DynamicPseudoType)),
	"tostring": conversion(cty.String),

	"env":                refused("it may be called only in the default of a variable"),
	"timestamp":          refused("a spec must give the same image at every build; pass the time as a variable"),
	"legacy_isotime":     refused("a spec must give the same image at every build; pass the time as a variable"),
	"legacy_strftime":    refused("a spec must give the same image at every build; pass the time as a variable"),
	"uuidv4":             refused("a spec must give the same image at every build; pass the id as a variable"),
	"uuidv5":             refused("it is not offered; pass the id as a variable"),
	"bcrypt":             refused("its salt is random and a spec must give the same image at every build; pass the hash as a variable"),
	"vault":              refused("an image holds no secrets; clone sites bring them"),
	"consul_key":         refused("a spec depends on its inputs only; pass the value as a variable"),
	"aws_secretsmanager": refused("an image holds no secrets; clone sites bring them"),
}

// local returns the name of a local file that a spec names.
func local(dir, name string) string {
	name = filepath.FromSlash(name)
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

func readText(dir, name string) ([]byte, error) {
	data, err := readBounded(local(dir, name))
	if err == nil && !utf8.Valid(data) {
		return nil, fmt.Errorf("%q is not UTF-8 text; use source, or filebase64", name)
	}
	return data, err
}

func digest(h hash.Hash, data []byte) string {
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// templateFile renders a file as an HCL template, in which only the given values can be used.
func templateFile(dir string) function.Function {
	funcs := textFunctions(dir)
	return function.New(&function.Spec{
		Params: []function.Parameter{
			{Name: "path", Type: cty.String},
			{Name: "vars", Type: cty.DynamicPseudoType},
		},
		Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			name, vars := args[0].AsString(), args[1]
			if t := vars.Type(); !t.IsObjectType() && !t.IsMapType() {
				return cty.NilVal, function.NewArgErrorf(1, "a map is required")
			}
			src, err := readText(dir, name)
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			if diags := hcltext.Bounded(name, src); diags.HasErrors() {
				return cty.NilVal, function.NewArgError(0, diags)
			}
			expr, diags := hclsyntax.ParseTemplate(src, name, hcl.InitialPos)
			if diags.HasErrors() {
				return cty.NilVal, function.NewArgError(0, diags)
			}
			ctx := &hcl.EvalContext{Functions: funcs, Variables: map[string]cty.Value{}}
			if vars.LengthInt() > 0 {
				ctx.Variables = vars.AsValueMap()
			}
			val, diags := expr.Value(ctx)
			if diags.HasErrors() {
				return cty.NilVal, function.NewArgError(0, diags)
			}
			text, err := convert.Convert(val, cty.String)
			if err != nil || text.IsNull() {
				return cty.NilVal, function.NewArgErrorf(0, "the template gives a %s, not text", val.Type().FriendlyName())
			}
			return text, nil
		},
	})
}

func stringFunction(param string, f func(string) (string, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: param, Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			s, err := f(args[0].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			return cty.StringVal(s), nil
		},
	})
}

func predicate(f func(s, part string) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}, {Name: "part", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.BoolVal(f(args[0].AsString(), args[1].AsString())), nil
		},
	})
}

// every makes alltrue (whose empty case is true) and anytrue.
func every(all bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.List(cty.Bool)}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for _, v := range args[0].AsValueSlice() {
				if v.IsNull() || v.True() != all {
					if all {
						return cty.False, nil
					}
					continue
				}
				if !all {
					return cty.True, nil
				}
			}
			return cty.BoolVal(all), nil
		},
	})
}

func conversion(to cty.Type) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowNull: true}},
		Type: func(args []cty.Value) (cty.Type, error) {
			v, err := convert.Convert(args[0], to)
			if err != nil {
				return cty.NilType, function.NewArgError(0, err)
			}
			return v.Type(), nil
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return convert.Convert(args[0], to)
		},
	})
}

// lengthFunc is that of Packer: of a list, a map or, other than in the standard library, a text.
var lengthFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType}},
	Type:   function.StaticReturnType(cty.Number),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		if args[0].Type() == cty.String {
			return stdlib.Strlen(args[0])
		}
		if !args[0].CanIterateElements() {
			return cty.NilVal, function.NewArgErrorf(0, "a list, a map or a string is required")
		}
		return args[0].Length(), nil
	},
})

// wide finds a width or precision of five digits.
var wide = regexp.MustCompile(`%[^a-zA-Z%]*[0-9]{5}`)

// boundedFormat refuses widths that are there to exhaust memory.
func boundedFormat(f function.Function) function.Function {
	return function.New(&function.Spec{
		Params:   f.Params(),
		VarParam: f.VarParam(),
		Type: func(args []cty.Value) (cty.Type, error) {
			if args[0].IsKnown() && args[0].Type() == cty.String && !args[0].IsNull() && wide.MatchString(args[0].AsString()) {
				return cty.NilType, function.NewArgErrorf(0, "a width over 9999")
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) },
	})
}

// refused is a function that exists elsewhere and says why it does not here.
func refused(why string) function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: "args", Type: cty.DynamicPseudoType, AllowNull: true, AllowUnknown: true, AllowDynamicType: true},
		Type: func([]cty.Value) (cty.Type, error) {
			return cty.NilType, fmt.Errorf("%s", why)
		},
	})
}
