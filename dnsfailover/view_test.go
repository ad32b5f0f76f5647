package dnsfailover

import "testing"

func TestFixedView(t *testing.T) {
	for _, tc := range []struct {
		site, primary Site
		want          Role
	}{
		{"a", "a", Active},
		{"b", "a", Standby},
		{"front2", "a", Standby}, // a further MX front is never active
	} {
		v := Fixed(tc.site, tc.primary)
		if v.Role != tc.want || v.Active != tc.primary || !v.Until.IsZero() {
			t.Errorf("Fixed(%s, %s) = %+v, want role %s", tc.site, tc.primary, v, tc.want)
		}
	}
	if (View{}).Role != Fenced {
		t.Error("the zero view must not allow anything")
	}
}
