package server

import (
	"fmt"
	"time"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
)

// enforced holds the dynamic settings that the authorizer relies on.
type enforced struct {
	dynamicconfig.Client
	values map[dynamicconfig.Key][]dynamicconfig.ConstrainedValue
}

// enforcedValues are the settings and what each protects.
func enforcedValues() map[dynamicconfig.Key]enforcedValue {
	return map[dynamicconfig.Key]enforcedValue{
		dynamicconfig.ExposeAuthorizerErrors.Key():          {"frontend.exposeAuthorizerErrors", true, "without it clients see no reason, and take \"unavailable\" for a denial"},
		dynamicconfig.EnableTokenNamespaceEnforcement.Key(): {"frontend.enableTokenNamespaceEnforcement", true, "without it a task token of another namespace is accepted"},
		dynamicconfig.DisableStreamingAuthorizer.Key():      {"system.disableStreamingAuthorizer", false, "with it streams are not authorised at all"},
	}
}

type enforcedValue struct {
	name   string // the key folds case
	value  bool
	reason string
}

// maxNamespaceRefresh is how old the server's own list of namespaces may be: the
// reconciler waits so long (its settleTime) before it lets calls to a name that
// another namespace had.
const maxNamespaceRefresh = 2 * time.Second

// Enforce fixes the dynamic settings that the authorizer relies on. It is an
// error when client sets one of them otherwise now; a later change of the
// settings does not reach the server.
func Enforce(client dynamicconfig.Client) (dynamicconfig.Client, error) {
	e := enforced{client, map[dynamicconfig.Key][]dynamicconfig.ConstrainedValue{}}
	for key, want := range enforcedValues() {
		for _, v := range client.GetValue(key) {
			if v.Value != want.value {
				return nil, fmt.Errorf("the dynamic configuration sets %s to %v: remove that, it has to be %v (%s)", want.name, v.Value, want.value, want.reason)
			}
		}
		e.values[key] = []dynamicconfig.ConstrainedValue{{Value: want.value}}
	}
	refresh := dynamicconfig.NamespaceCacheRefreshInterval
	interval := refresh.Get(dynamicconfig.NewCollection(client, log.NewNoopLogger()))()
	if interval <= 0 || interval > maxNamespaceRefresh {
		return nil, fmt.Errorf("the dynamic configuration sets system.namespaceCacheRefreshInterval to %v: it has to be %v at most (a namespace's name could lead to one that had it before)",
			interval, maxNamespaceRefresh)
	}
	e.values[refresh.Key()] = []dynamicconfig.ConstrainedValue{{Value: interval}}
	age := dynamicconfig.KeepAliveMaxConnectionAge
	longest := replica.MaxConnectionAge
	if len(client.GetValue(age.Key())) > 0 {
		longest = age.Get(dynamicconfig.NewCollection(client, log.NewNoopLogger()))()
	}
	if longest <= 0 || longest > replica.MaxConnectionAge {
		return nil, fmt.Errorf("the dynamic configuration sets frontend.keepAliveMaxConnectionAge to %v: it has to be %v at most (a connection would outlive the client certificate that it was made with)",
			longest, replica.MaxConnectionAge)
	}
	e.values[age.Key()] = []dynamicconfig.ConstrainedValue{{Value: longest}}
	return e, nil
}

// GetValue gives an enforced setting's only value, and otherwise the client's.
func (e enforced) GetValue(key dynamicconfig.Key) []dynamicconfig.ConstrainedValue {
	if values, ok := e.values[key]; ok {
		return values
	}
	return e.Client.GetValue(key)
}

// Subscribe passes changes on when the client tells of them, without those of
// enforced settings.
func (e enforced) Subscribe(update dynamicconfig.ClientUpdateFunc) (cancel func()) {
	client, ok := e.Client.(dynamicconfig.NotifyingClient)
	if !ok {
		return func() {}
	}
	return client.Subscribe(func(changed map[dynamicconfig.Key][]dynamicconfig.ConstrainedValue) {
		for key := range e.values {
			delete(changed, key)
		}
		update(changed)
	})
}
