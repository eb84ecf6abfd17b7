package powershelltest

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf16"
)

// Decode reads the argument of -EncodedCommand.
func Decode(b64 string) string {
	raw, _ := base64.StdEncoding.DecodeString(b64)
	units := make([]uint16, len(raw)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(raw[2*i:])
	}
	return string(utf16.Decode(units))
}

type cmdlet func(in *interpreter, flags map[string]any, args, input []any) ([]any, error)

// commands returns the built-in commands of PowerShell, by name.
func commands() map[string]cmdlet {
	return map[string]cmdlet{
		"write-output":   writeOutput,
		"echo":           writeOutput,
		"write-host":     writeHost,
		"write-error":    writeError,
		"out-null":       func(*interpreter, map[string]any, []any, []any) ([]any, error) { return nil, nil },
		"out-string":     outString,
		"set-psdebug":    setPSDebug,
		"set-strictmode": setStrictMode,
		"start-sleep":    startSleep,
		"where-object":   whereObject,
		"foreach-object": forEachObject,
		"test-path":      testPath,
		"remove-item":    removeItem,
		"set-content":    setContent,
		"get-content":    getContent,
		"new-object":     newObject,
	}
}

func writeOutput(_ *interpreter, _ map[string]any, args, input []any) ([]any, error) {
	if len(args) == 1 {
		return flat(args[0]), nil
	}
	return append(input, args...), nil
}

func writeHost(in *interpreter, _ map[string]any, args, _ []any) ([]any, error) {
	_, err := io.WriteString(in.Stdout, str(args)+in.newline())
	return nil, err
}

func writeError(in *interpreter, flags map[string]any, args, _ []any) ([]any, error) {
	return nil, in.fail(flags, "%s", str(args))
}

func outString(in *interpreter, _ map[string]any, _, input []any) ([]any, error) {
	var b strings.Builder
	for _, v := range input {
		b.WriteString(str(v) + in.newline())
	}
	return []any{b.String()}, nil
}

func setPSDebug(in *interpreter, flags map[string]any, _, _ []any) ([]any, error) {
	_, err := io.WriteString(in.Stdout, "DEBUG: trace "+str(flags["trace"])+in.newline())
	return nil, err
}

func setStrictMode(in *interpreter, _ map[string]any, _, _ []any) ([]any, error) {
	in.strict = true
	return nil, nil
}

func startSleep(_ *interpreter, flags map[string]any, args, _ []any) ([]any, error) {
	return nil, sleep(flags, args)
}

func whereObject(in *interpreter, _ map[string]any, args, input []any) (out []any, err error) {
	for _, v := range input {
		ok, err := in.each(args, v)
		if err != nil {
			return out, err
		}
		if truth(value(ok)) {
			out = append(out, v)
		}
	}
	return out, nil
}

func forEachObject(in *interpreter, _ map[string]any, args, input []any) (out []any, err error) {
	for _, v := range input {
		more, err := in.each(args, v)
		if out = append(out, more...); err != nil {
			return out, err
		}
	}
	return out, nil
}

// each calls a block for one value.
func (in *interpreter) each(args []any, v any) ([]any, error) {
	if len(args) != 1 {
		return nil, &thrown{"a block is needed"}
	}
	b, ok := args[0].(*block)
	if !ok {
		return nil, &thrown{"a block is needed"}
	}
	before := in.scope.vars["_"]
	in.scope.vars["_"] = v
	defer func() { in.scope.vars["_"] = before }()
	return in.capture(func() error { return in.inner(b) })
}

func setContent(in *interpreter, flags map[string]any, args, input []any) ([]any, error) {
	name, text := flags["path"], flags["value"]
	if flags["literalpath"] != nil {
		name = flags["literalpath"]
	}
	if name == nil && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	if text == nil && len(args) > 0 {
		text = args[0]
	}
	if text == nil {
		text = input
	}
	if err := os.WriteFile(in.Path(str(name)), []byte(str(text)+in.newline()), 0o600); err != nil {
		return nil, in.fail(flags, "%s", err)
	}
	return nil, nil
}

func getContent(in *interpreter, flags map[string]any, args, _ []any) (out []any, err error) {
	b, err := os.ReadFile(in.Path(str(args)))
	if err != nil {
		return nil, in.fail(flags, "%s", err)
	}
	for line := range strings.Lines(string(b)) {
		out = append(out, strings.TrimRight(line, "\r\n"))
	}
	return out, nil
}

func paths(flags map[string]any, args []any) []any {
	for _, name := range []string{"literalpath", "path"} {
		if v, ok := flags[name]; ok {
			return flat(v)
		}
	}
	if len(args) > 0 {
		return flat(args[0])
	}
	return nil
}

func testPath(in *interpreter, flags map[string]any, args, _ []any) ([]any, error) {
	all := paths(flags, args)
	if len(all) != 1 || str(all[0]) == "" {
		return nil, &thrown{"Test-Path: a path is needed"}
	}
	name := str(all[0])
	if v, ok := strings.CutPrefix(strings.ToLower(name), "variable:"); ok {
		_, is := in.global.vars[strings.TrimPrefix(v, "global:")]
		return []any{is}, nil
	}
	if hive, _, ok := strings.Cut(name, ":"); ok && strings.EqualFold(hive, "HKLM") {
		registry := in.COM["registry"]
		if registry == nil {
			return []any{false}, nil
		}
		is, err := registry.Call("exists", []any{name})
		return []any{is}, err
	}
	_, err := os.Lstat(in.Path(name))
	return []any{err == nil}, nil
}

func removeItem(in *interpreter, flags map[string]any, args, _ []any) ([]any, error) {
	for _, v := range paths(flags, args) {
		if str(v) == "" {
			return nil, &thrown{"Cannot bind argument to parameter 'LiteralPath' because it is an empty string."}
		}
		if err := os.Remove(in.Path(str(v))); err != nil {
			if err := in.fail(flags, "Remove-Item: %s", err); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

func newObject(in *interpreter, flags map[string]any, args, _ []any) ([]any, error) {
	if name, ok := flags["comobject"]; ok {
		o := in.COM[str(name)]
		if o == nil {
			return nil, &thrown{"Retrieving the COM class factory for " + str(name) + " failed."}
		}
		return []any{o}, nil
	}
	if len(args) == 0 {
		return nil, &thrown{"New-Object needs a type"}
	}
	if len(args) > 1 {
		args = append(args[:1], flat(args[1])...)
	}
	switch strings.TrimPrefix(strings.ToLower(str(args[0])), "system.") {
	case "io.filestream":
		f, err := os.Open(in.Path(str(args[1])))
		if err != nil {
			return nil, &thrown{err.Error()}
		}
		return []any{stream{f}}, nil
	case "io.streamreader":
		s, ok := args[1].(stream)
		if !ok {
			return nil, &thrown{"a StreamReader needs a stream"}
		}
		return []any{s}, nil
	}
	return nil, &thrown{"Cannot find type [" + str(args[0]) + "]"}
}

// stream is an open file.
type stream struct{ f *os.File }

func (stream) Get(name string) (any, error) { return nil, &thrown{"a stream has no " + name} }
func (stream) Set(name string, _ any) error { return &thrown{"a stream has no " + name} }
func (s stream) Call(name string, _ []any) (any, error) {
	switch name {
	case "readtoend":
		b, err := io.ReadAll(s.f)
		return string(b), err
	case "close":
		return nil, s.f.Close()
	}
	return nil, &thrown{"a stream has no " + name}
}

// console is one of the streams of [Console].
type console struct {
	w       io.Writer
	newline string
}

func (console) Get(name string) (any, error) { return nil, &thrown{"a writer has no " + name} }
func (console) Set(name string, _ any) error { return &thrown{"a writer has no " + name} }
func (c console) Call(name string, args []any) (any, error) {
	switch name {
	case "write":
		_, err := io.WriteString(c.w, str(args))
		return nil, err
	case "writeline":
		_, err := io.WriteString(c.w, str(args)+c.newline)
		return nil, err
	case "flush":
		return nil, nil
	}
	return nil, &thrown{"a writer has no " + name}
}

type encoding struct{}

func (encoding) Get(name string) (any, error) { return nil, &thrown{"an encoding has no " + name} }
func (encoding) Set(name string, _ any) error { return &thrown{"an encoding has no " + name} }
func (encoding) Call(name string, args []any) (any, error) {
	if len(args) == 1 {
		switch name {
		case "getstring", "getbytes":
			return str(args[0]), nil // bytes are represented as a text
		}
	}
	return nil, &thrown{"an encoding has no " + name}
}

var percent = regexp.MustCompile(`%([^%]+)%`)

// Expand replaces %NAME% in a text by the values of variables.
func Expand(env map[string]string, text string) string {
	return percent.ReplaceAllStringFunc(text, func(s string) string {
		if v, ok := env[strings.ToUpper(strings.Trim(s, "%"))]; ok {
			return v
		}
		return s
	})
}

// static is a static member of a type.
func (in *interpreter) static(of, name string, args []any) (any, error) {
	arg := ""
	if len(args) > 0 {
		arg = str(args[0])
	}
	switch strings.TrimPrefix(of, "system.") + "::" + name {
	case "text.encoding::utf8", "text.encoding::getencoding":
		return encoding{}, nil
	case "convert::frombase64string":
		b, err := base64.StdEncoding.DecodeString(arg)
		if err != nil {
			return nil, &thrown{"The input is not a valid Base-64 string."}
		}
		return string(b), nil
	case "convert::tobase64string":
		return base64.StdEncoding.EncodeToString([]byte(arg)), nil
	case "environment::expandenvironmentvariables":
		return Expand(in.Env, arg), nil
	case "environment::exit":
		code, err := number(args[0])
		if err != nil {
			return nil, err
		}
		return nil, &left{how: "exit", code: code}
	case "io.file::exists":
		info, err := os.Stat(in.Path(arg))
		return err == nil && info.Mode().IsRegular(), nil
	case "console::out":
		return console{in.Stdout, in.newline()}, nil
	case "console::error":
		return console{in.Stderr, in.newline()}, nil
	case "globalization.cultureinfo::currentculture":
		return fields{"textinfo": fields{"oemcodepage": 850}}, nil
	case "net.dns::gethostname":
		return in.Env["COMPUTERNAME"], nil
	}
	if strings.HasPrefix(strings.TrimPrefix(of, "system."), "io.file") { // an enumeration
		return name, nil
	}
	return nil, &thrown{fmt.Sprintf("Unable to find [%s]::%s", of, name)}
}
