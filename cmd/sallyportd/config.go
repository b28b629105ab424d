package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/vault"
)

// commands is the command line. Every flag can be given as an environment
// variable too (SALLYPORT_…), or in the JSON file that --config names.
type commands struct {
	Config      kong.ConfigFlag     `help:"JSON file with values for the flags." placeholder:"FILE"`
	LogFormat   string              `help:"How to log: text or json." enum:"text,json" default:"text"`
	LogLevel    slog.Level          `help:"The least level that is logged: debug, info, warn or error." default:"info"`
	Dev         devCommand          `cmd:"" help:"Serve everything on loopback with a PostgreSQL of its own: the place to try things."`
	Serve       serveCommand        `cmd:"" help:"Serve on a PostgreSQL that is given by URL."`
	Migrate     migrateCommand      `cmd:"" help:"Bring the database's schema to this program's version."`
	OperatorKey operatorKeyCommands `cmd:"" help:"Make the key that encrypts the secrets in the database."`
	TokenKey    tokenKeyCommands    `cmd:"" help:"Look after the keys that sign access tokens."`
	CA          caCommands          `cmd:"" name:"ca" help:"Make and look after the roots of the managed CA."`
	Account     accountCommands     `cmd:"" help:"Make and look after accounts."`
	Authorizer  authorizerCmds      `cmd:"" help:"Make credentials for authorizers."`
	Receipt     receiptCommand      `cmd:"" help:"Show which authorizers enforce a change. Exit status 3: not all of them (yet)."`
	Verify      verifyCommand       `cmd:"" help:"Check the journals' chains, and that tables and replicated objects agree."`
}

func (c *commands) logger(w *os.File) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// database is how a command finds the database: by URL, or as the one of a
// running `sallyportd dev`.
type database struct {
	DatabaseURL string `help:"PostgreSQL's URL. Empty: the database of the sallyportd dev that runs on --data." placeholder:"URL"`
	Data        string `help:"The data folder of sallyportd dev." default:".data" placeholder:"DIR"`
}

const databaseURLFile = "database-url"

func (d database) open(ctx context.Context) (*pgxpool.Pool, error) {
	url := d.DatabaseURL
	if url == "" {
		kept, err := os.ReadFile(filepath.Join(d.Data, databaseURLFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, sallyport.Invalid.Errorf("give --database-url, or start `sallyportd dev --data %s` first", d.Data)
		}
		if err != nil {
			return nil, fmt.Errorf("finding the database: %w", err)
		}
		url = strings.TrimSpace(string(kept))
	}
	return pg.Open(ctx, url)
}

const operatorKeyFile = "operator-key"

// keyed is a database with what opens the secrets in it.
type keyed struct {
	database
	OperatorKey string `help:"File of the operator's key. Empty: that of the sallyportd dev that runs on --data." placeholder:"FILE"`
}

func (k keyed) vault() (*vault.Vault, error) {
	file := k.OperatorKey
	if file == "" && k.DatabaseURL == "" {
		file = filepath.Join(k.Data, operatorKeyFile)
	}
	if file == "" {
		return nil, sallyport.Invalid.Errorf("give --operator-key, the file with which the service on this database runs")
	}
	return vault.Open(file)
}

// serving is what dev and serve have in common.
type serving struct {
	tokenFlags
	Listen        string   `help:"Address of the gRPC API, with TLS." default:"127.0.0.1:7443" placeholder:"HOST:PORT"`
	HTTPListen    string   `help:"Address of the API as HTTP/JSON, with /healthz and /readyz." default:"127.0.0.1:7480" placeholder:"HOST:PORT"`
	MetricsListen string   `help:"Address of /metrics for Prometheus. Empty: none." placeholder:"HOST:PORT"`
	TrustedProxy  []string `help:"Networks whose X-Forwarded-For is believed." placeholder:"CIDR"`
	Regions       string   `help:"JSON file with the regions and their cells: [{\"id\":\"aws-us-east-1\",\"provider\":\"aws\",\"region\":\"us-east-1\",\"location\":\"Virginia\",\"cell\":\"use1\",\"address\":\"use1.example.com:7233\"}]." placeholder:"FILE"`
}

func (s serving) proxies() ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range s.TrustedProxy {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, sallyport.Invalid.Errorf("--trusted-proxy %q is not a network such as 10.0.0.0/8", text)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

var trustDomainForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// checkTrustDomain refuses what certificates' name constraints cannot say.
func checkTrustDomain(text string) error {
	if _, err := netip.ParseAddr(text); err == nil || !trustDomainForm.MatchString(text) || strings.Contains(text, "..") {
		return sallyport.Invalid.Errorf("--trust-domain %q is not a host name in lower case such as cloud.example.com", text)
	}
	return nil
}

// checkPKIURL gives the URL as certificates have it.
func checkPKIURL(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", sallyport.Invalid.Errorf("--pki-url %q is not an address such as http://pki.example.com", text)
	}
	return strings.TrimRight(text, "/"), nil
}

// region is one entry of the --regions file.
type region struct {
	ID       string `json:"id"`
	Provider string `json:"provider"` // aws, gcp or azure
	Region   string `json:"region"`
	Location string `json:"location"`
	Cell     string `json:"cell"`
	Address  string `json:"address"` // where the cell's namespaces are reached, host:port; may be empty
}

func readRegions(file string) ([]region, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the regions: %w", err)
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	var regions []region
	if err := d.Decode(&regions); err != nil {
		return nil, sallyport.Invalid.Errorf("--regions %s is not a JSON list of regions: %v", file, err)
	}
	if len(regions) == 0 {
		return nil, sallyport.Invalid.Errorf("--regions %s names no region", file)
	}
	addresses := map[string]string{}
	for _, r := range regions {
		address, known := addresses[r.Cell]
		switch {
		case r.ID == "" || r.Cell == "":
			return nil, sallyport.Invalid.Errorf("--regions %s: each region needs an id and a cell", file)
		case r.Provider != "aws" && r.Provider != "gcp" && r.Provider != "azure":
			return nil, sallyport.Invalid.Errorf("--regions %s: the provider of %s is aws, gcp or azure, not %q", file, r.ID, r.Provider)
		case known && address != r.Address:
			return nil, sallyport.Invalid.Errorf("--regions %s: the cell %s has two addresses, %q and %q", file, r.Cell, address, r.Address)
		}
		addresses[r.Cell] = r.Address
	}
	return regions, nil
}

// strictJSON reads the --config file and refuses keys that no flag has: a
// misspelt limit would otherwise be no limit.
func strictJSON(r io.Reader) (kong.Resolver, error) {
	data, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return nil, err
	}
	resolver, err := kong.JSON(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var values map[string]any
	if err := json.Unmarshal(data, &values); err != nil {
		return nil, err
	}
	return strictResolver{resolver, values}, nil
}

type strictResolver struct {
	kong.Resolver
	values map[string]any
}

// Validate is called once with the whole command line.
func (s strictResolver) Validate(app *kong.Application) error {
	known := map[string]bool{}
	err := kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			known[flag.Name], known[strings.ReplaceAll(flag.Name, "-", "_")] = true, true
		}
		return next(nil)
	})
	if err != nil {
		return err
	}
	for key := range s.values {
		if !known[key] {
			return sallyport.Invalid.Errorf("the configuration file has %q, which is no flag of sallyportd", key)
		}
	}
	return nil
}

// devCell is the one cell of `sallyportd dev`; devRegions are all in it.
const devCell = "local"

func devRegions(address string) []region {
	regions := []region{
		{ID: "aws-us-east-1", Provider: "aws", Region: "us-east-1", Location: "US East (N. Virginia)"},
		{ID: "aws-us-west-2", Provider: "aws", Region: "us-west-2", Location: "US West (Oregon)"},
		{ID: "aws-ca-central-1", Provider: "aws", Region: "ca-central-1", Location: "Canada (Central)"},
		{ID: "aws-eu-central-1", Provider: "aws", Region: "eu-central-1", Location: "Europe (Frankfurt)"},
		{ID: "gcp-us-central1", Provider: "gcp", Region: "us-central1", Location: "Iowa"},
		{ID: "azure-centralus", Provider: "azure", Region: "centralus", Location: "US Central"},
	}
	for i := range regions {
		regions[i].Cell, regions[i].Address = devCell, address
	}
	return regions
}

func directoryRegions(regions []region) (list []directory.Region, addresses map[string]string) {
	addresses = map[string]string{}
	for _, r := range regions {
		list = append(list, directory.Region{ID: r.ID, CloudProvider: r.Provider, CloudRegion: r.Region, Location: r.Location, Cell: r.Cell})
		addresses[r.Cell] = r.Address
	}
	return list, addresses
}
