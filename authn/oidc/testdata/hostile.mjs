// A hostile OpenID provider for tests: oauth2-mock-server, which does to each sign-in
// what its login_hint says, as JSON: payload, header (over those of the ID token),
// rewrite (over the header of the signed one), redirect (over the parameters of the
// callback), status and body (of the token endpoint), userinfo.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(process.env.NODE_PACKAGES + '/'));
const { OAuth2Server } = await import(pathToFileURL(require.resolve('oauth2-mock-server')).href);

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
await server.start(undefined, '127.0.0.1');

const orders = new Map(); // by code
let last = {};
server.service.on('beforeAuthorizeRedirect', ({ url }, req) => {
  const order = JSON.parse(req.query.login_hint ?? '{}');
  orders.set(url.searchParams.get('code'), order);
  last = order;
  for (const [name, value] of Object.entries(order.redirect ?? {})) {
    url.searchParams.set(name, value);
  }
});
server.service.on('beforeTokenSigning', (token, req) => {
  const order = orders.get(req.body.code) ?? {};
  Object.assign(token.payload, order.payload);
  Object.assign(token.header, order.header);
});
server.service.on('beforeResponse', (response, req) => {
  const order = orders.get(req.body.code) ?? {};
  if (order.rewrite) {
    const parts = response.body.id_token.split('.');
    const header = JSON.parse(Buffer.from(parts[0], 'base64url'));
    parts[0] = Buffer.from(JSON.stringify({ ...header, ...order.rewrite })).toString('base64url');
    response.body.id_token = parts.join('.');
  }
  response.statusCode = order.status ?? response.statusCode;
  Object.assign(response.body, order.body);
});
server.service.on('beforeUserinfo', (response) => Object.assign(response.body, last.userinfo));
console.log(`issuer ${server.issuer.url}`);
process.stdin.resume();
process.stdin.on('end', () => process.exit(0)); // whoever started it has ended
