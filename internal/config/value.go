package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// setText parses text as k's kind into dst. The error says what to write.
func setText(k *key, dst reflect.Value, text string) error {
	if len(k.enum) > 0 && k.scalar() && !slices.Contains(k.enum, text) {
		if near := nearest(text, k.enum); near != "" {
			return fmt.Errorf("%q is not one of %s; did you mean %q?", text, strings.Join(k.enum, ", "), near)
		}
		return fmt.Errorf("%q is not one of %s", text, strings.Join(k.enum, ", "))
	}
	switch k.kind {
	case kindString:
		dst.SetString(text)
	case kindBool:
		return setBool(dst, text)
	case kindInt:
		return setInt(dst, text)
	case kindFloat:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%q is not a number", text)
		}
		dst.SetFloat(f)
	case kindDuration:
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		dst.SetInt(int64(d))
	case kindSize:
		n, err := parseSize(text)
		if err != nil {
			return err
		}
		dst.SetInt(n)
	case kindMode:
		m, err := strconv.ParseUint(text, 8, 32)
		if err != nil || m > 0o777 {
			return fmt.Errorf("%q is not a file mode; write it in octal, as 0660", text)
		}
		dst.SetUint(m)
	case kindText:
		u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](dst.Addr())
		if !ok {
			return fmt.Errorf("type %s does not parse text", dst.Type())
		}
		if err := u.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
	case kindList:
		return setListText(k, dst, text)
	case kindSection, kindMap:
		if text != "" {
			return fmt.Errorf("%s cannot be written as text", k.path)
		}
	}
	return nil
}

// setListText appends to the empty list dst what stands between commas; empty
// text adds nothing.
func setListText(k *key, dst reflect.Value, text string) error {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	if !k.elem.scalar() {
		return errors.New("a list of sections cannot be written as text")
	}
	for part := range strings.SplitSeq(text, ",") {
		elem := reflect.New(k.typ.Elem()).Elem()
		if err := setText(k.elem, elem, strings.TrimSpace(part)); err != nil {
			return err
		}
		dst.Set(reflect.Append(dst, elem))
	}
	return nil
}

func setBool(dst reflect.Value, text string) error {
	switch text {
	case "true":
		dst.SetBool(true)
	case "false":
		dst.SetBool(false)
	default:
		return fmt.Errorf("%q is neither true nor false", text)
	}
	return nil
}

func setInt(dst reflect.Value, text string) error {
	var err error
	if dst.CanUint() {
		var n uint64
		if n, err = strconv.ParseUint(text, 10, dst.Type().Bits()); err == nil {
			dst.SetUint(n)
		}
	} else {
		var n int64
		if n, err = strconv.ParseInt(text, 10, dst.Type().Bits()); err == nil {
			dst.SetInt(n)
		}
	}
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("%s is out of range", text)
	case err != nil:
		return fmt.Errorf("%q is not a whole number", text)
	}
	return nil
}

// parseDuration reads Go's notation, "1h30m", and days in front of it, "30d".
// A number without a unit is refused: 10 could be seconds or hours.
func parseDuration(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	if isNumber(text) {
		return 0, fmt.Errorf("a duration needs a unit (ms, s, m, h, d): %q could be %ss or %sh", text, text, text)
	}
	rest, total := text, time.Duration(0)
	if days, after, ok := strings.Cut(text, "d"); ok && isDigits(days) {
		n, err := strconv.ParseInt(days, 10, 64)
		if err != nil || n > int64(math.MaxInt64/day) {
			return 0, fmt.Errorf("%q is too long a duration", text)
		}
		rest, total = after, time.Duration(n)*day
	}
	if rest != "" || total == 0 && rest == text {
		d, err := time.ParseDuration(rest)
		if err != nil || isNumber(rest) {
			return 0, fmt.Errorf("%q is not a duration; write a number and a unit (ms, s, m, h, d), as 90s, 12h or 30d", text)
		}
		if d > math.MaxInt64-total {
			return 0, fmt.Errorf("%q is too long a duration", text)
		}
		total += d
	}
	if strings.Contains(text, "-") {
		return 0, fmt.Errorf("%q is negative", text)
	}
	return total, nil
}

// parseSize reads a number and a unit of bytes: "50MiB" is 52428800. A number
// without a unit is refused.
func parseSize(text string) (int64, error) {
	i := len(text)
	for i > 0 && (text[i-1] >= 'A' && text[i-1] <= 'Z' || text[i-1] >= 'a' && text[i-1] <= 'z') {
		i--
	}
	number, unit := strings.TrimSpace(text[:i]), text[i:]
	if unit == "" && isNumber(number) {
		return 0, fmt.Errorf("a size needs a unit (B, KiB, MiB, GiB, KB, MB, GB): %q could be %sB or %sMiB", text, number, number)
	}
	factor, known := sizeUnit(unit)
	if !known || !isNumber(number) || strings.ContainsAny(number, "+eE") {
		return 0, fmt.Errorf("%q is not a size; write a number and a unit (B, KiB, MiB, GiB, KB, MB, GB), as 50MiB", text)
	}
	if strings.HasPrefix(number, "-") {
		return 0, fmt.Errorf("%q is negative", text)
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n > math.MaxInt64/factor {
			return 0, fmt.Errorf("%q is too large", text)
		}
		return n * factor, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f*float64(factor) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", text)
	}
	return int64(f * float64(factor)), nil
}

// sizeUnit is how many bytes a unit stands for.
func sizeUnit(unit string) (bytes int64, known bool) {
	switch unit {
	case "B":
		return 1, true
	case "KiB":
		return 1 << 10, true
	case "MiB":
		return 1 << 20, true
	case "GiB":
		return 1 << 30, true
	case "KB":
		return 1e3, true
	case "MB":
		return 1e6, true
	case "GB":
		return 1e9, true
	}
	return 0, false
}

// isNumber says that text is a plain number, which as a duration or size lacks
// its unit.
func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil && strings.Trim(text, "0123456789.+-eE") == ""
}

func isDigits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}
