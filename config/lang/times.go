package lang

import (
	"fmt"
	"strings"
	"time"

	"github.com/ncruces/go-strftime"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/gocty"
)

// timestamp returns a function that returns the current time at each call.
func timestamp(now func() time.Time) function.Function {
	return function.New(&function.Spec{
		Type: function.StaticReturnType(cty.String),
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) {
			return cty.StringVal(now().UTC().Format(time.RFC3339)), nil
		},
	})
}

func legacyIsotime(start time.Time) function.Function {
	return optionalText("layout", start.UTC().Format, start)
}

func legacyStrftime(start time.Time) function.Function {
	return optionalText("format", func(format string) string { return strftime.Format(format, start.UTC()) }, start)
}

// optionalText makes a function of at most one string; without it the result is
// start in RFC 3339.
func optionalText(param string, f func(string) string, start time.Time) function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: param, Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			switch len(args) {
			case 0:
				return cty.StringVal(start.UTC().Format(time.RFC3339)), nil
			case 1:
				return cty.StringVal(f(args[0].AsString())), nil
			}
			return cty.NilVal, fmt.Errorf("at most one %s is allowed", param)
		},
	})
}

func timeParts(other string, otherType cty.Type) cty.Type {
	return cty.Object(map[string]cty.Type{
		"year": cty.Number, "year_day": cty.Number, "day": cty.Number,
		"month": cty.Number, "month_name": cty.String,
		"weekday": cty.Number, "weekday_name": cty.String,
		"hour": cty.Number, "minute": cty.Number, "second": cty.Number,
		"iso_year": cty.Number, "iso_week": cty.Number,
		other: otherType,
	})
}

func splitTime(t time.Time, other string, otherValue cty.Value) cty.Value {
	n := func(i int) cty.Value { return cty.NumberIntVal(int64(i)) }
	isoYear, isoWeek := t.ISOWeek()
	return cty.ObjectVal(map[string]cty.Value{
		"year": n(t.Year()), "year_day": n(t.YearDay()), "day": n(t.Day()),
		"month": n(int(t.Month())), "month_name": cty.StringVal(t.Month().String()),
		"weekday": n(int(t.Weekday())), "weekday_name": cty.StringVal(t.Weekday().String()),
		"hour": n(t.Hour()), "minute": n(t.Minute()), "second": n(t.Second()),
		"iso_year": n(isoYear), "iso_week": n(isoWeek),
		other: otherValue,
	})
}

var rfc3339Parse = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "timestamp", Type: cty.String}},
	Type:   function.StaticReturnType(timeParts("unix", cty.Number)),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		t, err := time.Parse(time.RFC3339, strings.Replace(args[0].AsString(), " ", "T", 1))
		if err != nil {
			return cty.NilVal, function.NewArgErrorf(0, "%q is not a time such as 2006-01-02T15:04:05Z", args[0].AsString())
		}
		return splitTime(t, "unix", cty.NumberIntVal(t.Unix())), nil
	},
})

var unixTimestampParse = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "unix_timestamp", Type: cty.Number}},
	Type:   function.StaticReturnType(timeParts("rfc3339", cty.String)),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		var seconds int64
		if err := gocty.FromCtyValue(args[0], &seconds); err != nil {
			return cty.NilVal, function.NewArgErrorf(0, "must be a whole number of seconds")
		}
		t := time.Unix(seconds, 0).UTC()
		return splitTime(t, "rfc3339", cty.StringVal(t.Format(time.RFC3339))), nil
	},
})
