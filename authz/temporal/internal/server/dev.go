package server

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/common/rpc/encryption"
)

// DevConfig is what a development server is made from.
type DevConfig struct {
	Listen   netip.AddrPort // of the frontend; port 0 takes a free one
	TLS      *tls.Config    // of the frontend; nil: plaintext, on a loopback address only
	Database string         // an SQLite file, made where it is missing; empty: in memory
	MaxAge   time.Duration  // of a client's connection, to the frontend; zero: the longest that may be
	LogLevel string         // debug, info, warn, error or fatal; empty: warn
}

// Dev configures a whole Temporal server in one process, on SQLite.
func Dev(c DevConfig) (Config, error) {
	if c.TLS == nil && !c.Listen.Addr().IsLoopback() {
		return Config{}, fmt.Errorf("%s is not a loopback address: keys would travel unencrypted; give a certificate", c.Listen.Addr())
	}
	server, client, err := internode()
	if err != nil {
		return Config{}, err
	}
	services, hosts, err := devServices(c.Listen)
	if err != nil {
		return Config{}, err
	}
	provider, err := temporal.FrontendTLS(&encryption.FixedTLSConfigProvider{
		InternodeServerConfig: server,
		InternodeClientConfig: client,
		FrontendServerConfig:  c.TLS,
	})
	if err != nil {
		return Config{}, err
	}
	settings := dynamicconfig.StaticClient{
		// A namespace is known a second after it was made, and a schedule's
		// search attributes at once.
		dynamicconfig.NamespaceCacheRefreshInterval.Key():           time.Second,
		dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
	}
	if c.MaxAge != 0 {
		settings[dynamicconfig.KeepAliveMaxConnectionAge.Key()] = c.MaxAge
	}
	dynamic, err := Enforce(settings)
	if err != nil {
		return Config{}, err
	}
	level := c.LogLevel
	if level == "" {
		level = "warn"
	}
	return Config{
		Temporal: devTemporal(c.Database, services),
		Services: Services(),
		TLS:      provider,
		Dynamic:  dynamic,
		Hosts:    hosts,
		Logger:   log.NewZapLogger(log.BuildZapLogger(log.Config{Level: level})),
	}, nil
}

func devServices(frontend netip.AddrPort) (map[string]config.Service, map[primitives.ServiceName]static.Hosts, error) {
	services := map[string]config.Service{}
	hosts := map[primitives.ServiceName]static.Hosts{}
	taken := map[uint16]bool{frontend.Port(): true}
	for _, name := range Services() {
		listen := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
		if name == string(primitives.FrontendService) {
			listen = frontend
		}
		if listen.Port() == 0 {
			var err error
			if listen, err = freePort(listen.Addr(), ephemeralPorts(), taken); err != nil {
				return nil, nil, err
			}
		}
		services[name] = config.Service{RPC: config.RPC{GRPCPort: int(listen.Port()), BindOnIP: listen.Addr().String()}}
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(listen.String())
	}
	return services, hosts, nil
}

func devTemporal(database string, services map[string]config.Service) *config.Config {
	sql := &config.SQL{
		PluginName:        sqlite.PluginName,
		DatabaseName:      database,
		ConnectAttributes: map[string]string{"mode": "rwc", "setup": "true", "_journal_mode": "WAL", "_synchronous": "NORMAL"},
	}
	if database == "" {
		// One process may run several servers, and the name tells them apart.
		sql.DatabaseName = sallyport.NewID("memory_")
		sql.ConnectAttributes = map[string]string{"mode": "memory", "cache": "private"}
	}
	frontend := services[string(primitives.FrontendService)].RPC
	return &config.Config{
		Global: config.Global{
			Membership: config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: "127.0.0.1"},
		},
		Persistence: config.Persistence{
			DefaultStore:     sqlite.PluginName,
			VisibilityStore:  sqlite.PluginName,
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{sqlite.PluginName: {SQL: sql}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        "active",
			CurrentClusterName:       "active",
			ClusterInformation: map[string]cluster.ClusterInformation{
				"active": {
					Enabled:                true,
					InitialFailoverVersion: 1,
					RPCAddress:             fmt.Sprintf("127.0.0.1:%d", frontend.GRPCPort),
				},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services:            services,
		Archival: config.Archival{
			History:    config.HistoryArchival{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
		},
		NamespaceDefaults: config.NamespaceDefaults{
			Archival: config.ArchivalNamespaceDefaults{
				History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
				Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			},
		},
	}
}
