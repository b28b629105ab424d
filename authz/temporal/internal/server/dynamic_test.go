package server

import (
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
)

// The server's list of namespaces cannot be made older than the reconciler
// waits for, nor a connection than a client certificate may be short.
func TestLimitedDurations(t *testing.T) {
	refresh, age := dynamicconfig.NamespaceCacheRefreshInterval, dynamicconfig.KeepAliveMaxConnectionAge
	for _, test := range []struct {
		name    string
		setting dynamicconfig.GlobalTypedSetting[time.Duration]
		value   any // nil: not set
		want    time.Duration
	}{
		{"refresh not set", refresh, nil, maxNamespaceRefresh},
		{"refresh shorter", refresh, "500ms", 500 * time.Millisecond},
		{"refresh in seconds", refresh, 1, time.Second},
		{"refresh as long as may be", refresh, 2 * time.Second, 2 * time.Second},
		{"refresh longer", refresh, "10s", 0},
		{"refresh longer, in seconds", refresh, 3, 0},
		{"no refresh", refresh, "0s", 0},
		{"age not set", age, nil, replica.MaxConnectionAge},
		{"age shorter", age, "1m", time.Minute},
		{"age longer", age, "5m", 0},
		{"no age", age, "0s", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			setting := test.setting
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
