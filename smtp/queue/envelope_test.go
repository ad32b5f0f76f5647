package queue

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"understudy/smtp"
)

// fillFields sets every field that JSON carries, so that a field which is new to
// the type and unknown to appendEnvelope is noticed.
func fillFields(t *rapid.T, v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()
		return
	case *netip.AddrPort:
		*x = rapid.SampledFrom([]netip.AddrPort{{}, netip.MustParseAddrPort("192.0.2.1:25"), netip.MustParseAddrPort("[2001:db8::1%eth0]:9")}).Draw(t, "addr")
		return
	}
	switch v.Kind() { //nolint:exhaustive // any other kind fails in default
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" {
				fillFields(t, v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(1, 3).Draw(t, "length"), 3))
		for i := range v.Len() {
			fillFields(t, v.Index(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillFields(t, v.Elem())
	case reflect.String:
		v.SetString(rapid.OneOf(rapid.SampledFrom([]string{"a@b.example", `"q\"@x`, "<&>", "tab\t\x00\x7f"}), rapid.StringN(1, 20, -1)).Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64Range(1, 1<<40).Draw(t, "number"))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.IntRange(1, 3).Draw(t, "number")))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(-100, 100).Draw(t, "score"))
	default:
		t.Fatalf("a field of kind %v: teach appendEnvelope and this test", v.Kind())
	}
}

func TestEnvelopeIsWhatJSONWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var env smtp.Envelope
		if rapid.Bool().Draw(t, "full") {
			fillFields(t, reflect.ValueOf(&env).Elem())
		}
		text, err := appendEnvelope([]byte("before"), &env)
		if err != nil {
			t.Fatal(err)
		}
		var got, want smtp.Envelope
		if err := json.Unmarshal(text[len("before"):], &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		standard, err := json.Marshal(&env)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(standard, &want); err != nil {
			t.Fatal(err)
		}
		if len(env.Recipients) == 0 {
			got.Recipients, want.Recipients = nil, nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\nwant\n%s", text, standard)
		}
	})
}
