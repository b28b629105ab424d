// A certified OpenID provider for tests: oidc-provider with its own pages for
// signing in. Takes its settings as JSON from the environment, and says on standard
// output which issuer it is.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(process.env.NODE_PACKAGES + '/'));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { Provider } = await load('oidc-provider');
const { exportJWK, generateKeyPair } = await load('jose');
const settings = JSON.parse(process.env.SETTINGS);

const keys = [];
for (const alg of ['RS256', 'PS256', 'ES256', 'EdDSA']) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  keys.push({ ...(await exportJWK(privateKey)), alg, use: 'sig', kid: alg });
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: settings.clients,
    jwks: { keys },
    cookies: { keys: ['test'] },
    claims: { openid: ['sub', 'sid'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
    scopes: ['openid', 'email', 'profile', 'groups'],
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
    features: { backchannelLogout: { enabled: true }, devInteractions: { enabled: true } },
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options), // its own refuses loopback
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true, name: `The ${id}`, groups: ['engineers', 'owners'] }),
    }),
  });
  provider.on('backchannel.error', (ctx, error) => console.error(error));
  server.on('request', provider.callback());
  console.log(`issuer ${issuer}`);
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0)); // whoever started it has ended
