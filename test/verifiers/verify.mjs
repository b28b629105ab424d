// Is a resource server that fetched our keys once, and never again: reads a token a
// line and answers with the kid that signed it, or with what is wrong.
import * as jose from 'jose'
import { createInterface } from 'node:readline'

const { issuer, audience } = JSON.parse(process.argv[2])
const metadata = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json()
if (metadata.issuer !== issuer) throw new Error(`the issuer is ${metadata.issuer}`)
const keys = jose.createRemoteJWKSet(new URL(metadata.jwks_uri), { cooldownDuration: Infinity, cacheMaxAge: Infinity })
await keys.reload()

for await (const token of createInterface({ input: process.stdin })) {
  const answer = await jose
    .jwtVerify(token, keys, {
      issuer,
      audience,
      typ: 'at+jwt',
      algorithms: ['ES256'],
      requiredClaims: ['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'client_id', 'account', 'epoch'],
    })
    .then(({ protectedHeader }) => `good ${protectedHeader.kid}`, (error) => `bad ${error.code}`)
  console.log(answer)
}
