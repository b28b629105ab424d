// Goes through what openid-client knows of our endpoints, and prints the tokens it got.
import * as client from 'openid-client'

const given = JSON.parse(process.argv[2])
const insecure = { execute: [client.allowInsecureRequests] } // the service is on loopback
const discover = (authentication) =>
  client.discovery(new URL(given.issuer), given.serviceAccount, undefined, authentication, insecure)
const tokens = {}

for (const [name, authentication] of [
  ['client_secret_post', client.ClientSecretPost(given.key)],
  ['client_secret_basic', client.ClientSecretBasic(given.key)],
]) {
  const config = await discover(authentication)
  const answer = await client.clientCredentialsGrant(config, { scope: 'read' })
  tokens[name] = answer.access_token
  if (answer.scope !== 'read' || answer.token_type !== 'bearer') throw new Error(`${name}: ${JSON.stringify(answer)}`)
  const facts = await client.tokenIntrospection(config, answer.access_token)
  if (!facts.active || facts.sub !== given.serviceAccount || facts.client_id !== given.serviceAccount || facts.scope !== 'read') {
    throw new Error(`introspection: ${JSON.stringify(facts)}`)
  }
  if ((await client.tokenIntrospection(config, answer.access_token.slice(0, -8) + 'AAAAAAAA')).active !== false) {
    throw new Error('a forged token is active')
  }
}

const workload = await discover(client.None())
const exchanged = await client.genericGrantRequest(workload, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token: given.subjectToken,
  subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
  account: given.account,
  service_account: given.serviceAccount,
})
if (exchanged.issued_token_type !== 'urn:ietf:params:oauth:token-type:access_token') throw new Error(JSON.stringify(exchanged))
tokens.exchange = exchanged.access_token

const refused = await client
  .genericGrantRequest(workload, 'urn:ietf:params:oauth:grant-type:token-exchange', {
    subject_token: given.subjectToken,
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    account: 'nobody2',
    service_account: given.serviceAccount,
  })
  .then(() => 'nothing', (error) => error.error)
if (refused !== 'invalid_grant') throw new Error(`an exchange for nobody: ${refused}`)

console.log(JSON.stringify(tokens))
