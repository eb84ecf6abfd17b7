// Package debuglog carries the log for developers in the context, which every call that can
// take time has.
package debuglog

import (
	"context"
	"log/slog"
)

type key struct{}

// With returns a context under which l is the log.
func With(ctx context.Context, l *slog.Logger) context.Context {
	return context.WithValue(ctx, key{}, l)
}

// From returns the log of ctx, or one that discards everything.
func From(ctx context.Context) *slog.Logger {
	if l, ok := ctx.Value(key{}).(*slog.Logger); ok {
		return l
	}
	return slog.New(slog.DiscardHandler)
}

// Redacted returns a handler that passes records on to h, with clean applied to
// every text in them: messages, and values as they would be written.
func Redacted(h slog.Handler, clean func(string) string) slog.Handler {
	return &redacted{h, clean}
}

type redacted struct {
	slog.Handler
	clean func(string) string
}

// Handle implements [slog.Handler].
func (r *redacted) Handle(ctx context.Context, in slog.Record) error {
	out := slog.NewRecord(in.Time, in.Level, r.clean(in.Message), in.PC)
	in.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(r.attr(a))
		return true
	})
	return r.Handler.Handle(ctx, out)
}

// WithAttrs implements [slog.Handler]. A value that becomes secret only later is not masked
// here, so the attributes should be names rather than values.
func (r *redacted) WithAttrs(attrs []slog.Attr) slog.Handler {
	var clean []slog.Attr
	for _, a := range attrs {
		clean = append(clean, r.attr(a))
	}
	return &redacted{r.Handler.WithAttrs(clean), r.clean}
}

// WithGroup implements [slog.Handler].
func (r *redacted) WithGroup(name string) slog.Handler {
	return &redacted{r.Handler.WithGroup(name), r.clean}
}

func (r *redacted) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		var group []any
		for _, g := range v.Group() {
			group = append(group, r.attr(g))
		}
		return slog.Group(a.Key, group...)
	case slog.KindString, slog.KindAny:
		return slog.String(a.Key, r.clean(v.String()))
	}
	return a
}
