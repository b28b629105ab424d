package server

import (
	"testing"
	"time"

	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
)

// The server's list of namespaces cannot be made older than the reconciler
// waits for.
func TestNamespaceRefresh(t *testing.T) {
	setting := dynamicconfig.NamespaceCacheRefreshInterval
	for _, test := range []struct {
		name  string
		value any // nil: not set
		want  time.Duration
	}{
		{"not set", nil, maxNamespaceRefresh},
		{"shorter", "500ms", 500 * time.Millisecond},
		{"in seconds", 1, time.Second},
		{"as long as may be", 2 * time.Second, 2 * time.Second},
		{"longer", "10s", 0},
		{"longer, in seconds", 3, 0},
		{"none", "0s", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := dynamicconfig.StaticClient{}
			if test.value != nil {
				client[setting.Key()] = test.value
			}
			enforced, err := Enforce(client)
			if (err == nil) != (test.want != 0) {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			client[setting.Key()] = time.Minute // later
			if got := setting.Get(dynamicconfig.NewCollection(enforced, log.NewNoopLogger()))(); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
